"""A running device while its fleet's authority gets a successor: nobody touches it meanwhile."""

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from edge_agent.identity.files import IdentityFiles
from fleet_server.authority.ca_folder import fingerprint
from fleet_server.authority.device_ca import DeviceCa, issuer_of
from fleet_server.services.clock import wall_clock
from tests.fleet_server.test_broker import HAS_MOSQUITTO
from tests.scenarios.test_enrolled_device import certificate
from tests.simulators.enrolled_device import agent, device_of, token_file
from tests.simulators.lone_device import Device
from tests.simulators.processes import Process, command, wait_for
from tests.simulators.server import FleetServer

pytestmark = pytest.mark.skipif(not HAS_MOSQUITTO, reason="mosquitto is absent")

LIFE_SECONDS = 20.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FleetServer]:
    with FleetServer(
        tmp_path / "server", broker="mosquitto", certificate_seconds=LIFE_SECONDS
    ) as found:
        yield found


@pytest.fixture
def device(server: FleetServer, tmp_path: Path) -> Device:
    ref = server.publish("1.0.0")
    found = device_of(server, tmp_path / "device")
    found.order(ref, 0)
    code, said = agent(found, "enrol", "--token-file", token_file(server, found))
    assert code == 0, said
    return found


def step(server: FleetServer, name: str) -> tuple[int, str]:
    done = subprocess.run(
        [*command("serinus-server"), "authority", name, "--config", str(server.settings)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def step_when_renewed(server: FleetServer, name: str, device: Device, refusal: str) -> None:
    """Take a step that is refused until the device has renewed its certificate."""
    for _ in range(4):
        before = certificate(device).serial
        code, said = step(server, name)
        if code == 0:
            return
        assert (code, refusal in said) == (2, True), said
        wait_for(lambda old=before: certificate(device).serial != old, seconds=60, what="a renewal")
    raise AssertionError(f"{name!r} is still refused")


def renewed(device: Device, process: Process) -> None:
    """Wait for the next renewal, and for a connection by it."""
    before = certificate(device).serial
    wait_for(lambda: certificate(device).serial != before, seconds=60, what="a certificate")
    connected(device, process)


def connected(device: Device, process: Process) -> None:
    wait_for(lambda: bool(device.status().get("connected")), seconds=60, what="the broker")
    assert "cannot be renewed" not in process.text()


def shown_by(server: FleetServer) -> bytes:
    """What names the authority of the certificate that HTTPS shows."""
    return issuer_of(ssl.get_server_certificate(("127.0.0.1", server.port)))


def learnt(device: Device) -> set[str]:
    """Fingerprints of whom it trusts."""
    trusted = (device.state / "identity" / "trusted.json").read_text()
    pem = trusted.replace("\\n", "\n").encode()
    return {fingerprint(one) for one in x509.load_pem_x509_certificates(pem)}


def test_a_device_lives_through_a_succession_without_anybody_touching_it(
    server: FleetServer, device: Device
) -> None:
    authority = DeviceCa(server.data / "ca")
    (first,) = authority.authorities(wall_clock()).every
    with device.agent() as process:
        wait_for(device.settled, seconds=60, what="the release")
        connected(device, process)

        code, said = step(server, "prepare")
        assert code == 0, said
        server.reconnect()
        step_when_renewed(server, "switch", device, "have not learnt")
        second = authority.authorities(wall_clock()).signer
        assert learnt(device) == {fingerprint(one.certificate) for one in (first, second)}
        wait_for(lambda: shown_by(server) == second.key_id, seconds=20, what="HTTPS to follow")
        connected(device, process)
        step_when_renewed(server, "retire", device, "still have a certificate")
        server.reconnect()
        renewed(device, process)
        assert learnt(device) == {fingerprint(second.certificate)}

        before = process.text().count("broker: connected")
        server.restart()
        wait_for(
            lambda: process.text().count("broker: connected") > before,
            seconds=60,
            what="a connection by what was learnt alone",
        )
        renewed(device, process)
        assert issuer_of(IdentityFiles(device.state).own.read_text()) == second.key_id
        assert device.serves() == "1.0.0"
    actions = [entry["action"] for entry in server.client.audit(limit=1000)]
    steps = [action for action in actions if action.startswith("authority.")]
    assert sorted(steps) == ["authority.prepare", "authority.retire", "authority.switch"]
