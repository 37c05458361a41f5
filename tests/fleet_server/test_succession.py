"""One certificate authority follows another: the steps, their order, their files, power cuts."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from edge_core import durable
from edge_core.errors import Unavailable
from fleet_server.authority import ca_folder
from fleet_server.authority import command as authority_command
from fleet_server.authority.ca_folder import CERTIFICATE, KEY, NEXT_KEY, OLD_KEY
from fleet_server.authority.device_ca import SERVER as SERVER_FILE
from fleet_server.authority.device_ca import DeviceCa, Revoked, issuer_of
from fleet_server.domain.succession import SETTLED_MS, Step
from fleet_server.services.errors import Conflict
from fleet_server.services.tokens import SERVER
from tests.fleet_server.test_enrolment import enrolled
from tests.simulators.processes import command
from tests.simulators.spoken_fleet import SpokenFleet

NOW = 1_700_000_000_000
STEPS: tuple[Step, ...] = ("prepare", "switch", "retire")
FILES = (CERTIFICATE, KEY, NEXT_KEY, OLD_KEY)


def certificates(pem: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem.encode())


def test_each_step_in_its_turn_and_again(fleet: SpokenFleet) -> None:
    succession, trusted = fleet.services.succession, fleet.services.certificates.trusted
    with pytest.raises(Conflict, match="authority prepare"):
        succession.step("switch", SERVER)
    (first,) = certificates(trusted())
    assert succession.step("prepare", SERVER).phase == "prepared"
    first_again, second = certificates(trusted())
    assert first_again == first
    with pytest.raises(Conflict, match="authority switch"):
        succession.step("retire", SERVER)
    assert succession.step("prepare", SERVER).phase == "prepared"
    assert certificates(trusted()) == [first, second]
    for _ in range(2):
        assert succession.step("switch", SERVER).phase == "switched"
        assert certificates(trusted()) == [second, first]
    with pytest.raises(Conflict, match="authority retire"):
        succession.step("prepare", SERVER)
    for _ in range(2):
        assert succession.step("retire", SERVER).phase == "alone"
        assert certificates(trusted()) == [second]
    assert {path.name for path in fleet.config.ca_dir.glob("*.key")} == {KEY}
    entries = fleet.services.audit_log.entries(0, 100)
    assert [entry.action for entry in entries] == [f"authority.{step}" for step in STEPS]


def test_devices_that_would_be_left_behind_are_named(fleet: SpokenFleet) -> None:
    succession, services = fleet.services.succession, fleet.services
    for n in range(7):
        enrolled(services, f"watch-{n}")
    fleet.clock.now += 3600_000
    succession.step("prepare", SERVER)
    fleet.clock.now += 2 * SETTLED_MS
    _, told = enrolled(services, "watch-7")
    assert len(certificates(told.chain)) == 2
    names = r"watch-0, watch-1, watch-2, watch-3, watch-4, \.\.\."
    with pytest.raises(Conflict, match=rf"^7 \({names}\) of 8 devices"):
        succession.step("switch", SERVER)
    services.certificates.revoke(serial=None, device="watch-0", reason="lost", by=SERVER)
    assert "watch-0" not in succession.standing().unaware
    succession.step("switch", SERVER, force=True)
    _, newest = enrolled(services, "watch-8")
    signer = certificates(newest.chain)[0]
    certificates(newest.certificate)[0].verify_directly_issued_by(signer)
    found = succession.standing()
    assert len(found.dependent) == 7
    assert [(row.state, row.signed) for row in found.authorities] == [("signs", 1), ("retiring", 7)]
    with pytest.raises(Conflict, match=r"^7 \(watch-1, .*of 8 devices"):
        succession.step("retire", SERVER)
    fleet.clock.now += 31 * 86_400_000  # all have ended but nobody is left who could be hurt
    assert succession.step("retire", SERVER).phase == "alone"


def test_each_authority_lists_what_it_has_signed(tmp_path: Path) -> None:
    authority = DeviceCa(tmp_path)
    made = [authority.identity("a", now_ms=NOW)[0]]
    authority.prepare(lambda: NOW)
    authority.switch(NOW)
    made.append(authority.identity("b", now_ms=NOW)[0])
    revoked = [Revoked(serial=one.serial, at_ms=NOW, pem=one.pem) for one in made]
    data = authority.revocations(revoked, number=NOW // 1000)
    assert authority.is_list(data, revoked, now_ms=NOW)
    every = authority.authorities(NOW).every
    lists = data.replace(b"CRL-----\n-----BEGIN", b"CRL-----\n|-----BEGIN").split(b"|")
    for signer, part, expected in zip(every, lists, (made[1], made[0]), strict=True):
        found = x509.load_pem_x509_crl(part)
        assert found.issuer == signer.certificate.subject
        assert [f"{entry.serial_number:x}" for entry in found] == [expected.serial]
        assert issuer_of(expected.pem) == signer.key_id
    for damaged in (
        lists[0],
        lists[1] + lists[0],
        lists[0] + lists[0],
        data + b"x",
        b"",
        data[:-9],
    ):
        assert not authority.is_list(damaged, revoked, now_ms=NOW)
    empty = authority.revocations([], number=NOW // 1000)
    assert not authority.is_list(empty, revoked, now_ms=NOW)


def test_another_process_s_step_counts_at_once(tmp_path: Path) -> None:
    running, other = DeviceCa(tmp_path), DeviceCa(tmp_path)
    before = running.trusted(NOW)
    other.prepare(lambda: NOW)
    assert running.trusted(NOW).startswith(before)
    assert running.trusted(NOW) != before
    other.switch(NOW)
    assert running.trusted(NOW).endswith(before)


def test_the_server_s_own_certificate_is_made_anew_for_the_same_names(tmp_path: Path) -> None:
    authority, names = DeviceCa(tmp_path), ["fleet.example", "192.0.2.1", "2001:db8::1"]
    file = authority.certify_server(names, now_ms=NOW)
    before = file.read_bytes()
    authority.prepare(lambda: NOW)
    authority.switch(NOW)
    after = file.read_bytes()
    authority.switch(NOW)
    assert (after != before, file.read_bytes()) == (True, after)
    found = x509.load_pem_x509_certificate(after)
    found.verify_directly_issued_by(authority.authorities(NOW).signer.certificate)
    shown = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in shown] == names


def cut(folder: Path, number: int, step: Callable[[DeviceCa], None]) -> bool:
    """Let a process take a step that dies at one file operation; whether it got that far."""
    child = os.fork()
    if child == 0:
        seen = 0

        def meet(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal seen
            if event in ("open", "os.rename", "os.remove") and str(folder) in str(arguments[0]):
                seen += 1
                if seen == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(meet)
        try:
            step(DeviceCa(folder))
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def took(step: Step, authority: DeviceCa) -> None:
    if step == "prepare":
        authority.prepare(lambda: NOW)
    elif step == "switch":
        authority.switch(NOW)
    else:
        authority.retire(NOW)


def before_step(step: Step, folder: Path) -> Path:
    """An authority's folder before a step."""
    authority = DeviceCa(folder)
    authority.certify_server(["fleet.example"], now_ms=NOW)
    for earlier in STEPS[: STEPS.index(step)]:
        took(earlier, authority)
    return folder


@pytest.mark.parametrize("step", STEPS)
def test_a_power_cut_at_any_file_operation_leaves_an_authority(tmp_path: Path, step: Step) -> None:
    """In a process without threads, for it forks."""
    code = f"from {__name__} import cut_everywhere; cut_everywhere({str(tmp_path)!r}, {step!r})"
    subprocess.run([sys.executable, "-c", code], check=True)


def cut_everywhere(place: str, step: Step) -> None:
    tmp_path = Path(place)
    before = before_step(step, tmp_path / "before")
    device, _ = DeviceCa(before).identity("watch-1", now_ms=NOW)
    number, lengths = 0, set()
    while True:
        number += 1
        folder = tmp_path / str(number)
        shutil.copytree(before, folder)
        killed = cut(folder, number, lambda found: took(step, found))
        found = DeviceCa(folder)
        usable(found, folder, device.pem if step != "retire" else None)
        lengths.add(len(found.authorities(NOW).every))
        took(step, found)
        settled(step, folder)
        if not killed:
            break
    assert number > (3 if step == "retire" else 6)
    assert len(lengths) == (1 if step == "switch" else 2)


def usable(authority: DeviceCa, folder: Path, earlier: str | None) -> None:
    """It signs, what it signs is trusted, and so is the server's certificate and an earlier one."""
    trusted = {ca_folder.key_id(one) for one in certificates((folder / CERTIFICATE).read_text())}
    made, _ = authority.identity("watch-2", now_ms=NOW)
    for pem in (made.pem, (folder / SERVER_FILE).read_text(), earlier):
        assert pem is None or issuer_of(pem) in trusted
    assert authority.is_list(authority.revocations([], number=NOW // 1000), [], now_ms=NOW), (
        "each that is trusted has its list"
    )
    assert all(one.key is not None for one in authority.authorities(NOW).every)


def settled(step: Step, folder: Path) -> None:
    """The step is done, whatever cut it off before, and nothing of it is left over."""
    found = DeviceCa(folder).authorities(NOW)
    keys = {"prepare": {KEY, NEXT_KEY}, "switch": {KEY, OLD_KEY}, "retire": {KEY}}[step]
    assert {path.name for path in folder.glob("*.key")} == keys
    assert len(found.every) == len(keys)
    assert (folder / CERTIFICATE).read_text() == found.pem
    if step != "prepare":
        assert issuer_of((folder / SERVER_FILE).read_text()) == found.signer.key_id


class FullDisk:
    """Takes some writes and refuses the one after them."""

    def __init__(self, takes: int) -> None:
        self._takes = takes
        self._write = durable.write_bytes

    def __call__(self, path: Path, data: bytes, *, mode: int = 0o644) -> None:
        self._takes -= 1
        if self._takes == -1:
            raise OSError(28, "No space left on device")
        self._write(path, data, mode=mode)


@pytest.mark.parametrize(("step", "writes"), zip(STEPS, (2, 4, 1), strict=True))
def test_a_disk_that_refuses_a_write_is_said_and_the_step_can_be_given_again(
    tmp_path: Path, step: Step, writes: int
) -> None:
    before = before_step(step, tmp_path / "before")
    for takes in range(writes):
        folder = tmp_path / str(takes)
        shutil.copytree(before, folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(durable, "write_bytes", FullDisk(takes))
            with pytest.raises(Unavailable, match="give the command again"):
                took(step, DeviceCa(folder))
        usable(DeviceCa(folder), folder, None)
        took(step, DeviceCa(folder))
        settled(step, folder)


def test_the_command_line_says_where_it_stands(tmp_path: Path) -> None:
    settings = tmp_path / "server.toml"
    settings.write_text(f'data_dir = "{tmp_path}"\n')

    done = subprocess.run(
        [*command("serinus-server"), "authority", "prepare", "--config", str(settings)],
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout
    assert done.returncode == 0, done.stderr
    lines = said.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["state", "signs", "next"]
    fingerprints = [line.split()[-1] for line in lines[1:3]]
    found = certificates((tmp_path / "ca" / CERTIFICATE).read_text())
    assert [ca_folder.fingerprint(one) for one in found] == fingerprints
    assert "0 of 0 devices have learnt" in said
    assert lines[-1].startswith("next: 'serinus-server authority switch'")


def test_the_page_names_who_is_not_as_far(fleet: SpokenFleet) -> None:
    enrolled(fleet.services, "watch-1")
    succession = fleet.services.succession
    fleet.clock.now += 3600_000
    assert "not yet: 1 (watch-1)" in authority_command.carry_out(succession, "prepare", force=False)
    said = authority_command.carry_out(succession, "switch", force=True)
    assert "still rest on the one that retires: 1 (watch-1)" in said
    assert authority_command.carry_out(succession, "show", force=False) == said
