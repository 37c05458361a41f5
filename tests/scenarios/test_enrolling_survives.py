"""Enrolling and renewing through kills and full disks: a real server, real agents, real signals."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.identity.files import NEXT, OWN, Certificate, IdentityFiles
from fleet_client.client import FleetClient
from tests.faults import limits
from tests.fleet_server.test_broker import HAS_MOSQUITTO
from tests.simulators.enrolled_device import agent, device_of, token_file
from tests.simulators.killed_enrolments import PREFIX
from tests.simulators.lone_device import Device
from tests.simulators.processes import Process, free_port, wait_for
from tests.simulators.server import FleetServer

pytestmark = pytest.mark.skipif(not HAS_MOSQUITTO, reason="mosquitto is absent")

LIFE_SECONDS = 16.0
USES = 100


@contextlib.contextmanager
def own_disk(folder: Path) -> Iterator[bool]:
    """A small file system on the folder, where that is allowed."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(limits.small_disk(folder))
        except PermissionError:
            yield False
        else:
            yield True


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """The folder's disk has no room meanwhile."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as stream:
        while (left := _room(folder)) > 0:
            stream.write(b"x" * min(left, 65536))
            stream.flush()
    try:
        yield
    finally:
        filler.unlink()


def _room(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetServer]:
    folder = tmp_path_factory.mktemp("server")
    with (
        own_disk(folder / "disk"),
        FleetServer(
            folder / "disk" / "server", broker="mosquitto", certificate_seconds=LIFE_SECONDS
        ) as found,
    ):
        found.publish("1.0.0")
        yield found


@pytest.fixture
def device(server: FleetServer, tmp_path: Path) -> Callable[[str], Device]:
    return lambda name: device_of(server, tmp_path / "d", name)


def certificate(device: Device) -> Certificate | None:
    found = IdentityFiles(device.state).present()
    return None if found is None else found[1]


def uses_left(client: FleetClient, devices: str) -> int:
    (row,) = [row for row in client.enrol_tokens() if row["devices"] == devices]
    return int(row["uses_left"])


def certified_once(server: FleetServer, device: Device, name: str) -> None:
    """The device holds the one certificate that was made for it, and the token is used once."""
    (row,) = server.client.certificates(name)
    held = certificate(device)
    assert held is not None
    assert (held.serial, held.device) == (row["serial"], name)
    assert uses_left(server.client, name) == 0


def test_a_kill_at_any_file_operation_costs_neither_token_nor_certificate(
    server: FleetServer, tmp_path: Path
) -> None:
    template = device_of(server, tmp_path / "template")
    text = template.config.read_text().replace("{", "{{").replace("}", "}}")
    text = text.replace('device = "watch-1"', 'device = "{device}"')
    text = text.replace(f'"{template.state}"', '"{state}"')
    (tmp_path / "settings").write_text(text)
    token = token_file(server, template, f"{PREFIX}*", uses=USES)
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulators.killed_enrolments", str(tmp_path),
         str(tmp_path / "settings"), str(token)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) > 10
    assert [row["killed"] for row in rows] == [True] * (len(rows) - 1) + [False]
    assert {row["code"] for row in rows} == {0}, "asking again does not help"
    left = {tuple(name for name in row["left"] if name in (OWN, NEXT)) for row in rows}
    assert {(), (NEXT,), (OWN, NEXT), (OWN,)} <= left, "not every stage of it was met"
    for row in rows:
        (made,) = server.client.certificates(row["device"])
        held = IdentityFiles(tmp_path / row["device"] / "state").present()
        assert held is not None
        assert held[1].serial == made["serial"]
    assert uses_left(server.client, f"{PREFIX}*") == USES - len(rows)


def test_a_full_disk_of_the_device_costs_no_token(
    server: FleetServer, device: Callable[[str], Device]
) -> None:
    found = device("full-1")
    token = token_file(server, found, "full-1")
    with own_disk(found.state) as mounted:
        if not mounted:
            pytest.skip("mounting is not allowed here")
        with full(found.state):
            code, said = agent(found, "enrol", "--token-file", token)
            assert (code, "No space left" in said) == (2, True), said
            assert server.client.certificates("full-1") == []
        _ask_nobody(found, token)  # the key is made, and the server has not heard of it
        with full(found.state):
            code, said = agent(found, "enrol", "--token-file", token)
            assert (code, "No space left" in said) == (2, True), said
            assert certificate(found) is None
            assert len(server.client.certificates("full-1")) == 1
        code, said = agent(found, "enrol", "--token-file", token)
        assert code == 0, said
        certified_once(server, found, "full-1")


def _ask_nobody(device: Device, token: Path) -> None:
    """Enrol where no server is."""
    before = device.config.read_text()
    text = before.partition("[identity]")
    nobody = f'\nserver = "https://127.0.0.1:{free_port()}"\n'
    lines = [line for line in text[2].splitlines() if not line.startswith("server")]
    device.config.write_text(text[0] + text[1] + nobody + "\n".join(lines))
    code, said = agent(device, "enrol", "--token-file", token)
    device.config.write_text(before)
    assert code == 2, said


def test_a_full_disk_of_the_server_issues_nothing(
    server: FleetServer, device: Callable[[str], Device]
) -> None:
    if not server.folder.parent.is_mount():
        pytest.skip("mounting is not allowed here")
    found = device("full-2")
    token = token_file(server, found, "full-2")
    before = server.client.audit(limit=1000)
    with full(server.folder.parent):
        for _ in range(2):
            code, said = agent(found, "enrol", "--token-file", token)
            assert (code, "full" in said) == (2, True), said
        assert server.client.certificates("full-2") == []
        assert uses_left(server.client, "full-2") == 1
        assert server.client.audit(limit=1000) == before
    code, said = agent(found, "enrol", "--token-file", token)
    assert code == 0, said
    certified_once(server, found, "full-2")
    assert server.client.verify_audit()["holds"]


def test_a_full_disk_while_it_renews_is_said_and_passes(
    server: FleetServer, device: Callable[[str], Device]
) -> None:
    found = device("full-3")
    with own_disk(found.state) as mounted:
        if not mounted:
            pytest.skip("mounting is not allowed here")
        code, said = agent(found, "enrol", "--token-file", token_file(server, found, "full-3"))
        assert code == 0, said
        with found.agent():
            first = certificate(found)
            assert first is not None
            with full(found.state):
                wait_for(
                    lambda: "cannot be renewed" in _troubles(found), seconds=40, what="the trouble"
                )
                assert certificate(found) == first
                assert found.status()["connected"] is True
            wait_for(lambda: _renewed(found, first), seconds=40, what="another certificate")
            wait_for(
                lambda: "renewed" not in _troubles(found), seconds=40, what="the trouble's end"
            )
    valid = [row for row in server.client.certificates("full-3") if row["state"] == "valid"]
    assert len({row["key"] for row in valid}) == len(valid)


def test_a_server_that_dies_while_it_issues_has_issued_once(
    server: FleetServer, device: Callable[[str], Device]
) -> None:
    found = device("cut-1")
    token = token_file(server, found, "cut-1")
    ordinary = server.process
    ordinary.kill()
    for point, issued in (("uncommitted", 0), ("committed", 1)):
        with Process([*_killed_at(point), *ordinary.arguments[3:]], ordinary.log) as dying:
            server.process = dying
            server.wait_until_up()
            code, said = agent(found, "enrol", "--token-file", token)
            assert code == 2, said
            wait_for(lambda p=dying: not p.running, seconds=10, what="the server's death")  # type: ignore[misc]
        made = "SELECT count(*) FROM certificates WHERE device = 'cut-1'"
        assert server.rows(made) == [(issued,)]
        left = "SELECT uses_left FROM enrol_tokens WHERE devices = 'cut-1'"
        assert server.rows(left) == [(1 - issued,)]
    server.process = ordinary.start()
    server.wait_until_up()
    before = server.client.certificates("cut-1")
    code, said = agent(found, "enrol", "--token-file", token)
    assert code == 0, said
    certified_once(server, found, "cut-1")
    assert server.client.certificates("cut-1") == before


def _killed_at(point: str) -> list[str]:
    return [sys.executable, "-m", "tests.simulators.killed_in_enrolment", point]


def _troubles(device: Device) -> str:
    status: dict[str, Any] = device.status()
    return str(status.get("troubles", "renewed"))


def _renewed(device: Device, first: Certificate) -> bool:
    found = certificate(device)
    return found is not None and found.serial != first.serial
