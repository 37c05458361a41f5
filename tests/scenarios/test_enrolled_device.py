"""A device with a certificate, end to end: enrolled, served over TLS, renewed, and thrown out."""

import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_agent.identity.files import Certificate, IdentityFiles
from fleet_server.authority.device_ca import DeviceCa
from fleet_server.services.clock import wall_clock
from tests.fleet_server.test_broker import HAS_MOSQUITTO
from tests.simulators.enrolled_device import NAME, agent, device_of, token_file
from tests.simulators.impostor import Impostor
from tests.simulators.lone_device import Device
from tests.simulators.processes import Process, command, wait_for
from tests.simulators.server import FleetServer
from tests.simulators.softhsm import MODULE, NEEDS_SOFTHSM, new_token

pytestmark = pytest.mark.skipif(not HAS_MOSQUITTO, reason="mosquitto is absent")

LIFE_SECONDS = 20.0

RENEW = """
import sys, time
from pathlib import Path
from edge_agent import config as configs
from edge_agent.identity import opening
from edge_agent.identity.files import IdentityFiles
config = configs.load(Path(sys.argv[1]))
files = IdentityFiles(config.state_dir)
key, present = files.present()
vouching = opening.hardware(config.identity)() if sys.argv[2] == "hardware" else key
now = time.time_ns() // 1_000_000
trust = opening.trust(config)
opening.authority(config.identity, trust).renew(files, present, vouching, now)
"""

HARDWARE = """pkcs11_module = "{module}"
pkcs11_token = "device"
pkcs11_pin_file = "pin"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetServer]:
    folder = tmp_path_factory.mktemp("server")
    with FleetServer(folder, broker="mosquitto", certificate_seconds=LIFE_SECONDS) as found:
        yield found


@pytest.fixture(scope="module")
def device(server: FleetServer, tmp_path_factory: pytest.TempPathFactory) -> Device:
    """A device that knows the fleet's authority, and has an order."""
    ref = server.publish("1.0.0")
    found = device_of(server, tmp_path_factory.mktemp("device"))
    found.order(ref, 0)
    return found


def certificate(device: Device) -> Certificate:
    found = IdentityFiles(device.state).present()
    assert found is not None
    return found[1]


def test_before_it_is_enrolled_it_says_what_to_do(server: FleetServer, device: Device) -> None:
    code, said = agent(device, "run")
    assert (code, "serinus-agent enrol" in said) == (2, True)
    (device.folder / "empty").write_text("")
    code, said = agent(device, "enrol", "--token-file", device.folder / "empty")
    assert (code, "serinus enrol token create" in said) == (2, True)
    (device.folder / "wrong").write_text("enrol_x")
    code, said = agent(device, "enrol", "--token-file", device.folder / "wrong")
    assert (code, "not known" in said) == (2, True)


def test_the_server_tells_how_long_its_certificate_lasts_and_that_revocations_are_heeded(
    server: FleetServer,
) -> None:
    trust = ssl.create_default_context(cafile=server.ca_file)
    text = httpx.get(f"{server.url}/metrics", verify=trust).text
    families = text_string_to_metric_families(text)
    told = {(s.name, s.labels.get("check", "")): s.value for f in families for s in f.samples}
    assert told["serinus_check_ok", "revocation"] == 1
    assert told["serinus_certificate_seconds_left", ""] > 30 * 86_400  # or a rule fires at once


def test_a_man_in_the_middle_hears_no_token(
    server: FleetServer, device: Device, tmp_path: Path
) -> None:
    token = token_file(server, device)
    before = device.config.read_text()
    own = DeviceCa(tmp_path).certify_server(["127.0.0.1"], now_ms=wall_clock())
    with Impostor(own) as impostor:
        device.config.write_text(before.replace(f'"{server.url}"', f'"{impostor.url}"'))
        code, said = agent(device, "enrol", "--token-file", token)
        device.config.write_text(before)
    assert (code, impostor.heard) == (2, [])
    assert "certificate" in said.lower()


def test_it_is_enrolled_and_serves_what_came_over_tls(
    server: FleetServer, device: Device, enrolled: Process
) -> None:
    own = IdentityFiles(device.state).own
    assert own.stat().st_mode & 0o777 == 0o600
    assert own.parent.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in own.parent.iterdir()} == {"device.pem", "trusted.json"}
    assert device.serves() == "1.0.0"


@pytest.fixture(scope="module")
def enrolled(server: FleetServer, device: Device) -> Iterator[Process]:
    """The agent, which runs with a certificate."""
    code, said = agent(device, "enrol", "--token-file", token_file(server, device))
    assert code == 0, said
    with device.agent() as process:
        wait_for(device.settled, seconds=40, what="the release")
        wait_for(lambda: bool(device.status().get("connected")), seconds=40, what="the broker")
        yield process


def test_it_renews_its_certificate_and_connects_with_the_new_one(
    server: FleetServer, device: Device, enrolled: Process
) -> None:
    first = certificate(device)
    wait_for(
        lambda: certificate(device).serial != first.serial, seconds=60, what="another certificate"
    )
    second = certificate(device)
    assert second.not_after_ms > first.not_after_ms
    assert second.public_pem != first.public_pem
    enrolled.wait_for_text("was renewed")
    before = enrolled.text().count("broker: connected")
    assert before >= 1
    wait_for(
        lambda: wall_clock() > first.not_after_ms and bool(device.status().get("connected")),
        seconds=60,
        what="a connection that outlives the first certificate",
    )
    assert device.serves() == "1.0.0"
    assert "its thread has ended by an error" not in enrolled.text()


def test_while_it_cannot_renew_it_says_so_and_serves(
    server: FleetServer, device: Device, enrolled: Process
) -> None:
    mark = len(enrolled.text())
    server.process.kill()
    wait_for(
        lambda: "cannot be renewed" in enrolled.text()[mark:], seconds=60, what="the complaint"
    )
    assert "cannot be renewed" in device.status()["troubles"]
    assert device.serves() == "1.0.0"
    server.process.start()
    server.wait_until_up()
    wait_for(
        lambda: "renewed" not in device.status().get("troubles", "renewed"),
        seconds=60,
        what="a certificate",
    )


def test_revoked_it_is_thrown_off_and_serves_on(
    server: FleetServer, device: Device, enrolled: Process
) -> None:
    wait_for(lambda: bool(device.status().get("connected")), seconds=60, what="the broker")
    rows = server.client.revoke_certificates(device=NAME, reason="stolen")
    assert {row["state"] for row in rows} == {"revoked"}
    wait_for(lambda: device.status().get("connected") is False, seconds=60, what="its end")
    wait_for(lambda: "revoked" in device.status()["troubles"], seconds=60, what="the reason")
    assert device.status()["connected"] is False
    assert device.serves() == "1.0.0"
    actions = [entry["action"] for entry in server.client.audit(limit=1000)]
    assert {"enrol_token.create", "certificate.issue", "certificate.renew"} <= set(actions)


def test_its_name_goes_to_another_key_by_an_operator_s_leave_only(
    server: FleetServer, device: Device, enrolled: Process
) -> None:
    code, said = agent(device, "enrol", "--token-file", token_file(server, device))
    assert (code, "another agent" in said) == (2, True)
    enrolled.stop()
    before = certificate(device)
    code, said = agent(device, "enrol", "--token-file", token_file(server, device))
    assert (code, "--reenrol" in said) == (2, True)
    assert certificate(device) == before
    code, said = agent(device, "enrol", "--token-file", token_file(server, device, reenrol=True))
    assert code == 0, said
    with device.agent():
        wait_for(lambda: bool(device.status().get("connected")), seconds=40, what="the broker")


@NEEDS_SOFTHSM
def test_a_key_in_hardware_vouches_for_it_and_a_copy_of_the_files_renews_nothing(
    server: FleetServer, device: Device, tmp_path: Path
) -> None:
    environment, config = new_token(tmp_path), tmp_path / "agent.toml"
    text = device.config.read_text().replace(str(device.folder), str(tmp_path))
    text = text.replace(f'"{NAME}"', '"safe-1"') + HARDWARE.format(module=MODULE)
    config.write_text(text)
    for name in ("fleet-ca.pem", "root.json"):
        (tmp_path / name).write_bytes((device.folder / name).read_bytes())
    (tmp_path / "token").write_text(server.client.create_enrol_token("safe-1"))
    enrol = [*command("serinus-agent"), "enrol", "--config", str(config)]
    subprocess.run([*enrol, "--token-file", str(tmp_path / "token")], env=environment, check=True)
    (row,) = server.client.certificates("safe-1")
    assert row["hardware"] is True

    def renew(by: str) -> str:
        arguments = [sys.executable, "-c", RENEW, str(config), by]
        done = subprocess.run(
            arguments, env=environment, capture_output=True, text=True, check=False
        )
        return done.stderr

    wait_for(lambda: renew("hardware") == "", seconds=40, what="a renewal that is not too early")
    assert len(server.client.certificates("safe-1")) == 2
    assert "not signed by the holder" in renew("file")
