"""Rollouts step by step: services on a real database, devices that say what a test lets them."""

from typing import Any

import msgspec
import pytest

from edge_core.release import ReleaseRef
from fleet_server.domain.plan import DEFAULT_PLAN
from fleet_server.services.errors import Conflict, InvalidRequest
from fleet_server.storage import releases
from tests.simulators.spoken_fleet import SpokenFleet

BACKENDS = ("sqlite", "postgresql")

DEVICES = [f"d{number}" for number in range(6)]


@pytest.fixture
def old(fleet: SpokenFleet, repository: Any) -> ReleaseRef:
    ref = fleet.approve(repository.publish("1.0.0"))
    fleet.produce(ref, DEVICES)
    return ref


@pytest.fixture
def new(fleet: SpokenFleet, repository: Any, old: ReleaseRef) -> ReleaseRef:
    ref: ReleaseRef = fleet.approve(repository.publish("1.1.0", seed=1))
    return ref


def started(fleet: SpokenFleet, ref: ReleaseRef) -> str:
    rollout = fleet.services.rollouts.start(ref.name, None, "me").rollout
    fleet.obey()
    return rollout


def test_a_device_that_cannot_go_back_does_not_hold_up_the_rollback(
    fleet: SpokenFleet, new: ReleaseRef
) -> None:
    rollout = started(fleet, new)
    fleet.services.rollouts.roll_back(rollout, "me", "bad")
    fleet.obey(but=["d0"])
    fleet.decide()
    assert fleet.services.rollouts.one(rollout).state == "rolling_back"
    revision = fleet.wishes()["d0"].revision
    fleet.report("d0", active=new, update="failed", revision=revision, reason="cannot read slot")
    fleet.decide()
    ended = fleet.services.rollouts.one(rollout)
    assert ended.state == "rolled_back"
    assert "bad" in ended.reason
    assert "d0" in ended.reason
    (title,) = fleet.alerts("rollout")
    assert "d0" in title
    assert not fleet.alerts("rollback")
    started(fleet, new)
    assert not fleet.alerts("rollout")


def test_the_way_back_ends_at_the_deadline_and_names_who_is_missing(
    fleet: SpokenFleet, new: ReleaseRef
) -> None:
    rollout = started(fleet, new)
    fleet.clock.now += round(DEFAULT_PLAN.deadline_seconds * 1000) - 1000
    fleet.obey()
    fleet.services.rollouts.roll_back(rollout, "me", "bad")

    def wait(seconds: float) -> str:
        fleet.clock.now += round(seconds * 1000)
        fleet.obey(but=["d0"])
        fleet.report("d0", active=new, update="downloading")
        fleet.decide()
        return fleet.services.rollouts.one(rollout).state

    assert wait(DEFAULT_PLAN.deadline_seconds) == "rolling_back"
    with pytest.raises(Conflict, match="has not ended"):
        fleet.services.rollouts.start(new.name, None, "me")
    assert wait(2) == "rolled_back"
    assert "not back by the deadline: d0" in fleet.services.rollouts.one(rollout).reason
    assert len(fleet.alerts("rollout")) == 1


def test_a_release_that_is_revoked_while_it_is_rolled_out_is_rolled_back(
    fleet: SpokenFleet, repository: Any, new: ReleaseRef
) -> None:
    rollout = started(fleet, new)
    assert {wish.shadow for wish in fleet.wishes().values()} == {new.digest}
    repository.revoke(new)
    fleet.watch.look()
    fleet.decide(10)
    row = fleet.services.rollouts.one(rollout)
    assert (row.state, "no longer approved" in row.reason) == ("rolling_back", True)
    assert {wish.shadow for wish in fleet.wishes().values()} == {None}
    assert "no longer approved" in fleet.alerts("rollback")[0]


def test_a_revoked_release_in_production_is_told_and_given_to_no_new_device(
    fleet: SpokenFleet, repository: Any, old: ReleaseRef
) -> None:
    fleet.report("early")
    assert fleet.wishes()["early"].active == old.digest
    repository.revoke(old)
    fleet.watch.look()
    (title,) = fleet.alerts("approval")
    assert old.name in title
    fleet.report("late")
    assert "late" not in fleet.wishes()
    repository.publish("1.0.0")
    fleet.watch.look()
    assert not fleet.alerts("approval")


def test_two_first_rollouts_do_not_fight_over_a_device(fleet: SpokenFleet, repository: Any) -> None:
    ref = fleet.approve(repository.publish("1.0.0"))
    database = fleet.services.database
    with database.write() as connection:  # the same bytes as a release of another model
        stored = releases.one(connection, ref.digest)
        assert stored is not None
        releases.add(
            connection, msgspec.structs.replace(stored, model="other-motion", digest="b" * 64)
        )
    for name in DEVICES:
        fleet.report(name)
    fleet.services.rollouts.start(ref.name, None, "me")
    with pytest.raises(Conflict, match="in no other rollout"):
        fleet.services.rollouts.start("other-motion@1.0.0", None, "me")
    fleet.report("d6")
    second = fleet.services.rollouts.start("other-motion@1.0.0", None, "me").rollout
    before = fleet.wishes()
    assert {name for name, wish in before.items() if wish.rollout == second} == {"d6"}
    for _ in range(3):
        fleet.decide(2)
    assert fleet.wishes() == before


def test_a_first_release_needs_a_stage_in_which_it_serves(
    fleet: SpokenFleet, repository: Any
) -> None:
    ref = fleet.approve(repository.publish("1.0.0"))
    fleet.report("d0")
    with pytest.raises(InvalidRequest, match="add a canary or ramp stage"):
        fleet.services.rollouts.start(ref.name, {"stages": [{"kind": "shadow", "share": 1}]}, "me")
    assert fleet.services.rollouts.every() == []
