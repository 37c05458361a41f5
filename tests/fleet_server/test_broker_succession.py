"""A real mosquitto while one authority follows another: who stays, who gets in, who no more."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent import tls
from edge_core.messages.enrolment import Enrolled
from fleet_server.broker.files import BrokerTls
from fleet_server.broker.guard import BrokerGuard
from fleet_server.broker.handshake import knock
from fleet_server.broker.process import Broker
from fleet_server.config import MqttConfig, ServerConfig
from fleet_server.domain.succession import SETTLED_MS, Step
from fleet_server.services.clock import wall_clock
from fleet_server.services.errors import Conflict
from fleet_server.services.suite import Services
from fleet_server.services.tokens import SERVER
from tests.fleet_server.test_broker import HAS_MOSQUITTO
from tests.fleet_server.test_broker_certificates import BY, Stage
from tests.simulators.enrolling import Applicant, new_key
from tests.simulators.mqtt_client import MqttClient
from tests.simulators.processes import wait_for

pytestmark = pytest.mark.skipif(not HAS_MOSQUITTO, reason="mosquitto is absent")

DAY_MS = 86_400_000
STEPS: tuple[Step, ...] = ("prepare", "switch", "retire")


class Shifted:
    """The wall's clock and some more; a certificate of 12 days ago may be renewed."""

    def __init__(self) -> None:
        self.by_ms = -12 * DAY_MS

    def __call__(self) -> int:
        return wall_clock() + self.by_ms


class Succeeded(Stage):
    """The stage, whose authority gets a successor."""

    def __init__(self, folder: Path) -> None:
        self.clock = Shifted()
        super().__init__(folder, self.clock)

    def step(self, step: Step, *, force: bool = False) -> None:
        """Take a step; the guard looks as it does every two seconds."""
        self.services.succession.step(step, SERVER, force=force)
        self.guard.look()
        assert self.guard.problem == ""


class Renewing:
    """A device that is enrolled and may renew."""

    def __init__(self, stage: Succeeded, name: str) -> None:
        self._stage = stage
        self._applicant = Applicant(name)
        secret = stage.services.enrol_tokens.create(
            name, uses=1, reenrol=False, expires_ms=None, by=BY
        )
        self.enrolled = stage.services.enrolment.enrol(self._applicant.enrolment(secret))
        self.name, self.file = name, self._kept(self.enrolled)

    def renew(self) -> None:
        """Get another certificate for another key, and learn whom to trust."""
        key = new_key()
        request = self._applicant.renewal(self.enrolled, self._stage.clock(), key=key)
        self.enrolled = self._stage.services.enrolment.renew(request)
        self._applicant.key = key
        self.file = self._kept(self.enrolled)

    def knocks(self) -> str:
        """What it gets from the broker, which it knows by what it has learnt."""
        context = tls.trusting_these(self.enrolled.chain, self.file)
        return knock("127.0.0.1", self._stage.config.port, context, self.name)

    def _kept(self, enrolled: Enrolled) -> Path:
        return self._stage.file(enrolled.serial, self._applicant.pem(enrolled))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Succeeded]:
    found = Succeeded(tmp_path)
    yield found
    found.close()


@pytest.fixture
def connect(stage: Succeeded) -> Iterator[Callable[[Path, str], MqttClient]]:
    with contextlib.ExitStack() as clients:
        yield lambda own, name: clients.enter_context(stage.client(own, name))


def test_devices_go_over_to_a_successor_and_none_is_thrown_off(
    stage: Succeeded, connect: Callable[[Path, str], MqttClient]
) -> None:
    late, early, lost, still = (Renewing(stage, n) for n in ("late", "early", "lost", "still"))
    inside, server = connect(still.file, still.name), connect(stage.guard.identity, "server")
    stage.clock.by_ms = 0

    stage.step("prepare")
    assert [one.knocks() for one in (late, early, lost)] == ["in"] * 3
    stage.clock.by_ms = 2 * SETTLED_MS
    early.renew()
    assert early.knocks() == "in"
    with pytest.raises(Conflict, match=r"3 \(late, lost, still\) of 4 devices"):
        stage.step("switch")

    stage.step("switch", force=True)
    newcomer, robbed = Renewing(stage, "newcomer"), Renewing(stage, "robbed")
    assert [one.knocks() for one in (early, newcomer, robbed)] == ["in"] * 3
    assert late.knocks() == "away"  # it was told nothing and does not know this broker,
    assert stage.knocks(late.file) == "in"  # which knows it
    late.renew()
    assert late.knocks() == "in"
    for one in (lost, robbed):
        stage.revoke(device=one.name)
    stage.guard.look()
    assert stage.guard.problem == ""
    assert [stage.knocks(one.file) for one in (lost, robbed)] == ["refused"] * 2
    assert [one.knocks() for one in (late, early, newcomer)] == ["in"] * 3
    assert (inside.losses, server.losses) == (0, 0)
    with pytest.raises(Conflict, match=r"2 \(early, still\) of 4 devices"):
        stage.step("retire")

    stage.step("retire", force=True)
    wait_for(lambda: inside.losses == 1, seconds=10, what="the end of what the old one signed")
    assert [stage.knocks(one.file) for one in (early, still, lost, robbed)] == ["refused"] * 4
    assert [stage.knocks(one.file) for one in (late, newcomer)] == ["in"] * 2


def test_the_gateway_s_connection_follows(stage: Succeeded) -> None:
    stage.clock.by_ms = 0
    context = stage.guard.context
    for step in STEPS:
        stage.step(step)
        assert knock("127.0.0.1", stage.config.port, context, "x") == "in"
    stage.authority.certify_server(["localhost"], now_ms=wall_clock())
    stage.guard.look()
    assert stage.guard.problem == ""
    assert knock("127.0.0.1", stage.config.port, context, "x") == "in"


def test_an_authority_that_has_ended_keeps_no_other_from_listing(tmp_path: Path) -> None:
    clock = Shifted()
    clock.by_ms = -3649 * DAY_MS
    services = Services.open(ServerConfig(data_dir=str(tmp_path)), clock)
    authority = services.certificates.authority
    server = authority.certify_server(["localhost"], now_ms=clock())
    clock.by_ms = 0
    services.succession.step("prepare", SERVER, force=True)
    services.succession.step("switch", SERVER, force=True)
    tls = BrokerTls(ca_file=authority.certificate_file, certificate=server, key=server)
    config = MqttConfig(broker="mosquitto", tls=True)
    broker = Broker(config, tmp_path, tls)
    guard = BrokerGuard(config, services.certificates, broker, tls, clock)
    guard.prepare()
    assert len(list(broker.folder.glob("revoked-probe-*"))) == 2
    clock.by_ms = 2 * DAY_MS
    files, entries = guard._new_probes(clock())
    assert [file.name for file in files] == ["revoked-probe-signs.pem"]
    data = authority.revocations(entries, number=clock() // 1000)
    assert authority.is_list(data, entries, now_ms=clock())
    services.database.close()
