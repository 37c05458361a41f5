"""The server's word on a candidate's trial, and what of it reaches the device."""

from typing import Any

import msgspec
import pytest

from edge_core.messages import codec, topics
from edge_core.messages.deployment import DesiredState
from edge_core.messages.telemetry import Probation, ReportedState, ReportedState1, StatsWindow
from edge_core.release import ReleaseRef
from fleet_server.services.desired import Wanted, want
from fleet_server.services.ingest import Inbound
from tests.simulators.spoken_fleet import SpokenFleet
from tests.simulators.tiny_bundle import TARGET

BACKENDS = ("sqlite", "postgresql")

PASSED = Probation(passed=True, rows=40, verdict="40 rows, 0 errors")


@pytest.fixture
def release(repository: Any, fleet: SpokenFleet) -> ReleaseRef:
    return fleet.approve(repository.publish("1.0.0"))


@pytest.fixture
def fleet(tmp_path: Any, clock: Any, repository: Any) -> Any:
    with SpokenFleet(tmp_path, clock) as found:
        yield found


def order(fleet: SpokenFleet, release: ReleaseRef, arm: Any = "candidate") -> int:
    """Order it; the revision."""
    with fleet.services.database.write() as connection:
        want(connection, {"d1": Wanted(active=release.digest, arm=arm)}, [], fleet.clock())
    return fleet.wishes()["d1"].revision


def say(fleet: SpokenFleet, release: ReleaseRef, revision: int, **changes: Any) -> None:
    state = ReportedState(
        device="d1",
        at_ms=fleet.clock(),
        target=TARGET,
        runtime="none",
        desired_revision=revision,
        active=release,
        update="probation",
        probation=PASSED,
    )
    retained = changes.pop("retained", False)
    payload = codec.encode(msgspec.structs.replace(state, **changes))
    inbound = Inbound(topic=topics.up("d1", "state"), payload=payload, retained=retained)
    fleet.services.ingest.take([inbound])


def send_window(fleet: SpokenFleet, release: ReleaseRef, sequence: int, arm: Any) -> None:
    window = StatsWindow(
        device="d1",
        epoch="e",
        sequence=sequence,
        opened_ms=fleet.clock() - 1000,
        closed_ms=fleet.clock(),
        release=release,
        target=TARGET,
        arm=arm,
        rows=0,
        errors=0,
    )
    fleet.window(window)


def told(fleet: SpokenFleet) -> list[DesiredState]:
    """What would be sent to the device now; it is noted as delivered."""
    due = fleet.services.desired.to_send()
    fleet.services.desired.sent(due)
    fleet.services.desired.delivered([(message.device, message.revision) for message in due])
    return [codec.decode(DesiredState, message.payload) for message in due]


def test_a_device_that_speaks_and_whose_windows_arrive_is_confirmed_once(
    fleet: SpokenFleet, release: ReleaseRef
) -> None:
    say(fleet, release, 0, update="idle", active=None, probation=None)
    revision = order(fleet, release)
    (first,) = told(fleet)
    assert (first.confirm_seconds, first.confirmed) == (900.0, False)
    say(fleet, release, revision)
    assert told(fleet) == []  # no window yet
    send_window(fleet, release, 1, "shadow")
    assert told(fleet) == []
    send_window(fleet, release, 2, "candidate")
    (second,) = told(fleet)
    assert (second.revision, second.confirmed) == (revision, True)
    send_window(fleet, release, 3, "candidate")
    say(fleet, release, revision)
    assert told(fleet) == []


def test_a_confirmation_that_a_device_did_not_hear_is_said_again(
    fleet: SpokenFleet, release: ReleaseRef
) -> None:
    say(fleet, release, 0, update="idle", active=None, probation=None)
    revision = order(fleet, release)
    told(fleet)
    say(fleet, release, revision)
    send_window(fleet, release, 1, "candidate")
    assert [state.confirmed for state in told(fleet)] == [True]
    fleet.clock.now += 16_000
    assert [state.confirmed for state in told(fleet)] == [True]
    say(fleet, release, revision, update="committed", probation=None)
    fleet.clock.now += 16_000
    assert told(fleet) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"probation": None},
        {"probation": msgspec.structs.replace(PASSED, passed=False)},
        {"update": "committed"},
        {"update": "failed"},
        {"desired_revision": 99},
        {"active": ReleaseRef(model="tiny-motion", version="9.9.9", digest="9" * 64)},
    ],
)
def test_nothing_else_is_confirmed(
    fleet: SpokenFleet, release: ReleaseRef, changes: dict[str, Any]
) -> None:
    say(fleet, release, 0, update="idle", active=None, probation=None)
    revision = order(fleet, release)
    told(fleet)
    say(fleet, release, revision, **changes)
    send_window(fleet, release, 1, "candidate")
    assert not any(state.confirmed for state in told(fleet))


def test_windows_of_an_earlier_time_prove_nothing_and_what_the_broker_kept_does_not(
    fleet: SpokenFleet, release: ReleaseRef
) -> None:
    say(fleet, release, 0, update="idle", active=None, probation=None)
    send_window(fleet, release, 1, "candidate")
    fleet.clock.now += 1000
    revision = order(fleet, release)
    told(fleet)
    say(fleet, release, revision, retained=True)
    assert told(fleet) == []


def test_a_device_that_nobody_asks_needs_no_windows(
    fleet: SpokenFleet, release: ReleaseRef
) -> None:
    say(fleet, release, 0, update="idle", active=None, probation=None)
    revision = order(fleet, release)
    told(fleet)
    say(fleet, release, revision, probation=Probation(passed=True))
    assert [state.confirmed for state in told(fleet)] == [True]


def test_what_is_no_candidate_waits_for_nobody(fleet: SpokenFleet, release: ReleaseRef) -> None:
    say(fleet, release, 0, update="idle", active=None, probation=None)
    order(fleet, release, "incumbent")
    assert [state.confirm_seconds for state in told(fleet)] == [None]


def test_a_device_of_before_gets_what_it_reads(fleet: SpokenFleet, release: ReleaseRef) -> None:
    state = ReportedState1(device="d1", at_ms=0, target=TARGET, runtime="none")
    payload = msgspec.msgpack.encode(state)
    fleet.services.ingest.take([Inbound(topic=topics.up("d1", "state"), payload=payload)])
    order(fleet, release)
    (message,) = fleet.services.desired.to_send()
    assert msgspec.msgpack.decode(message.payload)["v"] == 1
    assert codec.decode(DesiredState, message.payload).active == release
