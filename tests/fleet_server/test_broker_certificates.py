"""A real mosquitto that knows its clients by certificates: who gets in, as whom, and who not."""

import contextlib
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from edge_core.errors import InvalidConfiguration
from edge_core.messages.enrolment import Enrolled
from fleet_server.authority.device_ca import DeviceCa
from fleet_server.broker.files import CRL, BrokerTls
from fleet_server.broker.guard import BrokerGuard
from fleet_server.broker.handshake import knock, pinned
from fleet_server.broker.process import Broker
from fleet_server.config import MqttConfig, ServerConfig
from fleet_server.services.clock import Clock, wall_clock
from fleet_server.services.suite import Services
from tests.fleet_server.test_broker import HAS_MOSQUITTO
from tests.simulators.enrolling import Applicant
from tests.simulators.mqtt_client import MqttClient
from tests.simulators.processes import free_port, wait_for

pytestmark = pytest.mark.skipif(not HAS_MOSQUITTO, reason="mosquitto is absent")

BY = ("olga", "operator")


class Stage:
    """Services, an authority, mosquitto and the guard beside it."""

    def __init__(self, folder: Path, clock: Clock = wall_clock) -> None:
        self.folder = folder
        self.services = Services.open(ServerConfig(data_dir=str(folder)), clock)
        self.authority = self.services.certificates.authority
        server = self.authority.certify_server(["localhost", "127.0.0.1"], now_ms=wall_clock())
        certificate, key = self.placed(server)
        self.tls = BrokerTls(
            ca_file=self.authority.certificate_file, certificate=certificate, key=key
        )
        self.config = MqttConfig(port=free_port(), broker="mosquitto", tls=True)
        self.broker = Broker(self.config, folder, self.tls)
        self.guard = BrokerGuard(
            self.config, self.services.certificates, self.broker, self.tls, wall_clock
        )
        self.guard.prepare()
        self.broker.start()
        self.guard.look()

    def placed(self, server: Path) -> tuple[Path, Path]:
        """Where the server's certificate and its key are."""
        return server, server

    def close(self) -> None:
        self.guard.stop()
        self.broker.stop()
        self.services.database.close()

    def device(self, name: str) -> "Device":
        """Enrol a device."""
        secret = self.services.enrol_tokens.create(
            name, uses=1, reenrol=False, expires_ms=None, by=BY
        )
        applicant = Applicant(name)
        return Device(self, applicant, self.services.enrolment.enrol(applicant.enrolment(secret)))

    def revoke(self, *, serial: str | None = None, device: str | None = None) -> None:
        self.services.certificates.revoke(serial=serial, device=device, reason="stolen", by=BY)

    def file(self, name: str, pem: bytes) -> Path:
        path = self.folder / f"{name}.pem"
        path.write_bytes(pem)
        return path

    def knocks(self, own: Path, name: str = "x") -> str:
        return knock("127.0.0.1", self.config.port, pinned(self.tls.certificate, own), name)

    def client(self, own: Path, name: str) -> MqttClient:
        return MqttClient(pinned(self.tls.certificate, own), self.config.port, name)


class Device:
    """An enrolled device with its files."""

    def __init__(self, stage: Stage, applicant: Applicant, enrolled: Enrolled) -> None:
        self.name = applicant.device
        self.enrolled = enrolled
        self.file = stage.file(enrolled.serial, applicant.pem(enrolled))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    found = Stage(tmp_path_factory.mktemp("broker"))
    yield found
    found.close()


@pytest.fixture
def connect(stage: Stage) -> Iterator[Callable[[Path, str], MqttClient]]:
    with contextlib.ExitStack() as clients:
        yield lambda own, name: clients.enter_context(stage.client(own, name))


def test_a_device_speaks_and_hears_in_its_own_name_only(
    stage: Stage, connect: Callable[[Path, str], MqttClient]
) -> None:
    server = connect(stage.guard.identity, "serinus-server")
    server.subscribe("serinus/v1/up/#")
    one, two = stage.device("own-1"), stage.device("own-2")
    first, second = connect(one.file, "anything"), connect(two.file, "else")
    first.subscribe("serinus/v1/down/own-1/#", "serinus/v1/down/own-2/#", "#", "serinus/v1/up/#")
    for name in ("own-1", "own-2"):
        server.publish(f"serinus/v1/down/{name}/desired", name.encode(), retain=True)
    second.publish("serinus/v1/up/own-1/state", b"forged")
    second.publish("serinus/v1/down/own-1/desired", b"forged", retain=True)
    second.publish("serinus/v1/up/own-2/state", b"true")
    first.publish("serinus/v1/up/own-1/state", b"end")
    wait_for(lambda: len(server.came) >= 2, seconds=10, what="two messages")
    server.publish("serinus/v1/down/own-1/command", b"last")
    wait_for(lambda: b"last" in dict(first.came).values(), seconds=10, what="the last command")
    assert sorted(server.came) == [
        ("serinus/v1/up/own-1/state", b"end"),
        ("serinus/v1/up/own-2/state", b"true"),
    ]
    assert {payload for _, payload in first.came} == {b"own-1", b"last"}


def test_a_client_id_is_taken_by_nobody_else(
    stage: Stage, connect: Callable[[Path, str], MqttClient]
) -> None:
    victim, attacker = stage.device("id-1"), stage.device("id-2")
    held = connect(victim.file, "serinus-id-1")
    for name in ("id-1", "serinus-id-1", "@server"):
        assert stage.knocks(attacker.file, name) == "in"  # as itself
    held.publish("serinus/v1/up/id-1/state", b"here")
    assert held.losses == 0


def test_who_is_let_in_by_nobody(stage: Stage, tmp_path: Path) -> None:
    now = wall_clock()
    stranger = DeviceCa(tmp_path / "other")
    _, foreign = stranger.identity("watch-01", now_ms=now)
    assert stage.knocks(stage.file("foreign", foreign)) == "refused"
    _, old = stage.authority.identity("old", now_ms=now, life=timedelta(milliseconds=1))
    assert stage.knocks(stage.file("old", old)) == "refused"
    assert stage.knocks(stage.tls.certificate) == "refused"  # the server's own is for servers
    anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anonymous.check_hostname = False
    anonymous.load_verify_locations(stage.tls.ca_file)
    assert knock("127.0.0.1", stage.config.port, anonymous, "x") == "refused"
    with socket.create_connection(("127.0.0.1", stage.config.port), timeout=5) as plain:
        plain.sendall(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x0a\x00\x01x")
        with contextlib.suppress(ConnectionError):
            assert plain.recv(4)[:1] != b"\x20"
    weak = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    weak.check_hostname = False
    weak.load_verify_locations(stage.tls.ca_file)
    weak.load_cert_chain(stage.device("tls-1").file)
    assert knock("127.0.0.1", stage.config.port, weak, "x") == "in"
    weak.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        weak.maximum_version = ssl.TLSVersion.TLSv1_1
    assert knock("127.0.0.1", stage.config.port, weak, "x") == "refused"


def test_a_revoked_device_is_thrown_off_and_others_stay(
    stage: Stage, connect: Callable[[Path, str], MqttClient]
) -> None:
    lost, kept = stage.device("rev-1"), stage.device("rev-2")
    inside, other = connect(lost.file, "a"), connect(kept.file, "b")
    stage.revoke(device="rev-1")
    assert stage.knocks(lost.file) == "in"  # the broker has not heard of it yet
    inside = connect(lost.file, "a")
    stage.guard.look()
    wait_for(lambda: inside.losses == 1, seconds=10, what="the connection's end")
    assert stage.knocks(lost.file) == "refused"
    other.publish("serinus/v1/up/rev-2/state", b"here")
    assert (other.losses, stage.guard.problem) == (0, "")


def test_a_list_that_somebody_broke_is_noticed_and_mended(stage: Stage) -> None:
    lost = stage.device("list-1")
    stage.revoke(serial=lost.enrolled.serial)
    stage.guard.look()
    for broken in (b"", b"garbled"):
        (stage.broker.folder / CRL).write_bytes(broken)
        stage.broker.reload()
        wait_for(lambda: stage.knocks(lost.file) == "in", seconds=10, what="the broker to fail")
        stage.guard._probed_ms = 0  # a minute later
        stage.guard.look()
        assert stage.guard.problem == ""
        assert stage.knocks(lost.file) == "refused"


class Apart(Stage):
    """Certificate and key of the server are files of somebody else's, each by itself."""

    def placed(self, server: Path) -> tuple[Path, Path]:
        certificate, key = self.folder / "own.pem", self.folder / "own.key"
        self.put(certificate, server)
        self.put(key, server)
        return certificate, key

    def put(self, place: Path, server: Path) -> None:
        place.write_bytes(server.read_bytes())


def test_a_certificate_whose_key_comes_later_takes_nobody_off(tmp_path: Path) -> None:
    stage = Apart(tmp_path)
    try:
        device = stage.device("pair-1")
        renewed = stage.authority.certify_server(["localhost"], now_ms=wall_clock())
        stage.put(stage.tls.certificate, renewed)
        with pytest.raises(InvalidConfiguration, match=r"own\.pem with the key"):
            stage.guard.look()
        stage.put(stage.tls.key, renewed)
        stage.guard.look()
        assert stage.guard.problem == ""
        assert stage.knocks(device.file) == "in"
    finally:
        stage.close()


def test_a_broker_that_can_serve_nobody_does_not_pass_for_one_that_refuses(tmp_path: Path) -> None:
    stage = Apart(tmp_path)
    try:
        stage.put(stage.tls.key, stage.authority.certify_server(["x"], now_ms=wall_clock()))
        stage.broker.reload()
        wait_for(lambda: stage.knocks(stage.guard.identity) == "away", seconds=10, what="no answer")
    finally:
        stage.close()


def test_a_broker_that_lets_the_revoked_in_is_said_loudly(
    stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    lost = stage.device("loud-1")
    stage.revoke(serial=lost.enrolled.serial)
    pid = int((stage.broker.folder / "broker.pid").read_text())
    os.kill(pid, signal.SIGSTOP)  # it hears no signal, as one that hangs
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fleet_server.broker.guard.RELOAD_SECONDS", 0.2)
            patch.setattr("fleet_server.broker.handshake.SECONDS", 0.2)
            stage.guard._guarded(stage.guard.look)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "cannot throw loud-1 off" in stage.guard.problem
    assert "revocations are not enforced now" in capfd.readouterr().err
    (alert,) = [a for a in stage.services.overview.alerts(50) if a.kind == "revocation"]
    assert alert.closed_ms is None
    stage.guard._guarded(stage.guard.look)
    assert stage.guard.problem == ""
    (alert,) = [a for a in stage.services.overview.alerts(50) if a.kind == "revocation"]
    assert alert.closed_ms is not None
    assert stage.knocks(lost.file) == "refused"


def test_a_guard_thread_does_the_same_by_itself(
    stage: Stage, connect: Callable[[Path, str], MqttClient]
) -> None:
    lost = stage.device("thread-1")
    inside = connect(lost.file, "a")
    stage.guard.start()
    stage.revoke(device="thread-1")
    wait_for(lambda: inside.losses == 1, seconds=20, what="the connection's end")
    assert stage.guard.alive


def test_the_embedded_broker_refuses_all_but_loopback() -> None:
    for settings in ({"host": "0.0.0.0"}, {"host": "192.0.2.1"}, {"tls": True}):
        with pytest.raises(ValueError, match=r"127\.0\.0\.1"):
            MqttConfig(broker="embedded", **settings)  # type: ignore[arg-type]


def test_tls_without_mosquitto_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("fleet_server.broker.process.PLACES", ())
    with pytest.raises(InvalidConfiguration, match="needs mosquitto"):
        Broker(MqttConfig(tls=True), tmp_path)
