"""What people do with rollouts: approve, abort, supersede, hold out, spare sites."""

from collections import Counter
from typing import Any

import pytest

from edge_core.release import ReleaseRef
from fleet_server.services.errors import Conflict, InvalidRequest
from fleet_server.services.groups import Change
from fleet_server.services.rollout_views import RolloutView
from fleet_server.storage import audit, rollouts
from tests.simulators.spoken_fleet import SpokenFleet

BACKENDS = ("sqlite", "postgresql")
NAMES = [f"d{number:02}" for number in range(20)]
FIRST = {"kind": "canary", "share": 0.25, "min_seconds": 0}


@pytest.fixture
def old(fleet: SpokenFleet, repository: Any) -> ReleaseRef:
    ref = fleet.approve(repository.publish("1.0.0"))
    fleet.produce(ref, NAMES)
    return ref


@pytest.fixture
def new(fleet: SpokenFleet, repository: Any, old: ReleaseRef) -> ReleaseRef:
    return fleet.approve(repository.publish("1.1.0", seed=1))


def start(fleet: SpokenFleet, ref: ReleaseRef, **plan: Any) -> str:
    settings = {"stages": [FIRST], "strata": [], **plan}
    return fleet.services.rollouts.start(ref.name, settings, "ann").rollout


def roles(fleet: SpokenFleet, rollout: str) -> Counter[str]:
    with fleet.services.database.read() as connection:
        return Counter(rollouts.roles(connection, rollout, 0).values())


def actions(fleet: SpokenFleet) -> list[tuple[str, str]]:
    with fleet.services.database.read() as connection:
        return [(entry.action, entry.actor) for entry in audit.every(connection)]


def running(fleet: SpokenFleet, ref: ReleaseRef) -> set[str]:
    return {name for name, wish in fleet.wishes().items() if wish.active == ref.digest}


def test_a_stage_that_asks_for_two_people_waits_for_two_others(
    fleet: SpokenFleet, new: ReleaseRef
) -> None:
    rollout = start(fleet, new, stages=[FIRST | {"approvals": 2}])
    fleet.decide()
    assert fleet.services.rollouts.one(rollout).state == "needs_approval"
    assert running(fleet, new) == set()  # nothing was ordered
    with pytest.raises(Conflict, match="somebody else"):
        fleet.services.rollouts.approve(rollout, "ann", "")
    fleet.services.rollouts.approve(rollout, "bob", "seen the card")
    with pytest.raises(Conflict, match="already"):
        fleet.services.rollouts.approve(rollout, "bob", "")
    fleet.decide()
    waiting = fleet.services.rollouts.one(rollout)
    assert waiting.approvals is not None
    assert [entry.person for entry in waiting.approvals.given] == ["bob"]
    fleet.services.rollouts.approve(rollout, "eve", "")
    fleet.decide()
    assert fleet.services.rollouts.one(rollout).state == "running"
    assert len(running(fleet, new)) == 5
    with pytest.raises(Conflict, match="nothing waits"):
        fleet.services.rollouts.approve(rollout, "zoe", "")
    told = [("rollout.start", "ann"), ("rollout.approve", "bob"), ("rollout.approve", "eve")]
    assert actions(fleet) == told


def test_an_abort_leaves_every_device_where_it_is(fleet: SpokenFleet, new: ReleaseRef) -> None:
    rollout = start(fleet, new)
    chosen = sorted(running(fleet, new))
    late = chosen[0]
    fleet.obey(but=[late])
    aborted = fleet.services.rollouts.abort(rollout, "ann", "the fair is over")
    assert aborted.state == "aborted"
    assert sorted(running(fleet, new)) == chosen[1:]  # the one that had not begun stays
    assert {wish.shadow for wish in fleet.wishes().values()} == {None}
    fleet.decide(100_000)
    assert sorted(running(fleet, new)) == chosen[1:]
    with pytest.raises(Conflict, match="any more"):
        fleet.services.rollouts.roll_back(rollout, "ann", "")
    start(fleet, new)  # and another may begin


def test_another_rollout_takes_over_without_a_way_back_in_between(
    fleet: SpokenFleet, new: ReleaseRef, repository: Any
) -> None:
    first = start(fleet, new)
    fleet.obey()
    newer = fleet.approve(repository.publish("1.2.0", seed=2))
    with pytest.raises(Conflict, match="supersede"):
        start(fleet, newer)
    settings = {"stages": [FIRST], "strata": []}
    second = fleet.services.rollouts.start(newer.name, settings, "bob", supersede=True)
    assert fleet.services.rollouts.one(first).state == "superseded"
    assert second.incumbent == "tiny-motion@1.0.0"  # what is in production, not the candidate
    assert running(fleet, new) == set()
    assert len(running(fleet, newer)) == 5
    fleet.decide()
    assert fleet.services.rollouts.one(first).state == "superseded"


def test_held_out_devices_stay_after_the_end_until_they_are_let_go(
    fleet: SpokenFleet, old: ReleaseRef, new: ReleaseRef
) -> None:
    rollout = start(fleet, new, holdout=0.2)
    assert roles(fleet, rollout)["holdout"] == 4
    promote(fleet, rollout)
    assert len(running(fleet, new)) == 16
    held = running(fleet, old)
    assert len(held) == 4
    fleet.decide(10)
    assert running(fleet, old) == held
    fleet.services.rollouts.release_holdout(rollout, "ann")
    assert running(fleet, old) == set()
    with pytest.raises(Conflict, match="holds no device out"):
        fleet.services.rollouts.release_holdout(rollout, "ann")


def test_the_whole_fleet_waits_for_a_person_where_the_plan_says_so(
    fleet: SpokenFleet, new: ReleaseRef
) -> None:
    rollout = start(fleet, new, promotion_approvals=1)
    fleet.obey()
    pass_stage(fleet, rollout)
    assert fleet.services.rollouts.one(rollout).state == "needs_approval"
    assert len(running(fleet, new)) == 5
    assert fleet.alerts("rollout")
    fleet.services.rollouts.approve(rollout, "bob", "")
    fleet.decide()
    assert fleet.services.rollouts.one(rollout).state == "promoting"
    assert len(running(fleet, new)) == 20
    assert not fleet.alerts("rollout")


def test_a_rollout_that_waits_for_people_is_still_rolled_back_when_it_is_worse(
    fleet: SpokenFleet, new: ReleaseRef
) -> None:
    rollout = start(fleet, new, promotion_approvals=1)
    fleet.obey()
    pass_stage(fleet, rollout)
    for name in sorted(running(fleet, new)):
        fleet.refuse(name, new)
    fleet.decide()
    assert fleet.services.rollouts.one(rollout).state == "rolling_back"


def test_no_site_has_more_devices_changing_than_its_budget(
    fleet: SpokenFleet, new: ReleaseRef
) -> None:
    query = f"name={','.join(NAMES[:10])}"
    fleet.services.groups.label(query, Change(site="oslo"), by="ann", role="operator")
    whole = [{"kind": "ramp", "share": 1.0, "min_seconds": 0}]
    rollout = start(fleet, new, stages=whole, disruption={"most": 2})
    seen: set[str] = set()
    for _ in range(12):
        wanted = running(fleet, new)
        changing = wanted - seen
        assert sum(name in NAMES[:10] for name in changing) <= 2
        assert len(changing) <= 4
        fleet.obey()
        seen = wanted
        fleet.decide(1)
    assert running(fleet, new) == set(NAMES)
    shown = fleet.services.rollouts.devices(rollout, "", 100)
    assert {device.waits_for for device in shown} == {""}


def test_a_rollback_waits_for_no_window(
    fleet: SpokenFleet, old: ReleaseRef, new: ReleaseRef
) -> None:
    fleet.clock.now = 1_790_000_000_000 // 86_400_000 * 86_400_000 + 12 * 3_600_000  # noon, UTC
    night = [{"begin": "22:00", "end": "04:00"}]
    rollout = start(fleet, new, maintenance=night)
    assert running(fleet, new) == set()
    waits = Counter(d.waits_for for d in fleet.services.rollouts.devices(rollout, "", 100))
    assert waits["outside of its maintenance window"] == 5
    fleet.decide(11 * 3600)
    assert len(running(fleet, new)) == 5
    fleet.obey()
    fleet.clock.now += 12 * 3_600_000
    fleet.services.rollouts.roll_back(rollout, "ann", "bad")
    assert running(fleet, old) == set(NAMES)


def test_a_device_is_asked_as_often_as_the_plan_says_and_then_counts(
    fleet: SpokenFleet, new: ReleaseRef
) -> None:
    rollout = start(fleet, new, attempts=3, retry_seconds=100, max_lost_share=0.3)
    late = min(running(fleet, new))
    fleet.obey(but=[late])

    def fail() -> int:
        revision = fleet.wishes()[late].revision
        fleet.report(late, active=None, update="failed", revision=revision, reason="cut off")
        return revision

    first = fail()
    fleet.decide(50)
    assert fleet.wishes()[late].revision == first  # too early
    fleet.decide(60)
    assert fleet.wishes()[late].revision == first + 1
    fail()
    fleet.decide(150)
    assert fleet.wishes()[late].attempts == 2
    fleet.decide(60)
    assert fleet.wishes()[late].attempts == 3
    fail()
    fleet.decide(100_000)
    assert fleet.wishes()[late].attempts == 3  # no endless retry
    (shown,) = (d for d in fleet.services.rollouts.devices(rollout, "", 100) if d.device == late)
    assert shown.waits_for == "asked 3 of 3 times: cut off"


def test_devices_without_room_speak_of_themselves_and_not_of_the_release(
    fleet: SpokenFleet, new: ReleaseRef
) -> None:
    rollout = start(fleet, new, attempts=1)
    chosen = sorted(running(fleet, new))
    fleet.obey(but=chosen)
    for name in chosen:
        revision = fleet.wishes()[name].revision
        fleet.report(
            name, update="failed", revision=revision, reason="no room", troubles=["disk is full"]
        )
    fleet.decide(10)
    assert fleet.services.rollouts.one(rollout).state == "running"
    shown = fleet.services.rollouts.devices(rollout, "", 100)
    assert {d.waits_for for d in shown if d.device in chosen} == {
        "cannot take it now: disk is full"
    }


def test_a_straggler_is_asked_again_after_the_rollout_has_ended(
    fleet: SpokenFleet, new: ReleaseRef
) -> None:
    rollout = start(fleet, new)
    promote(fleet, rollout)
    wish = fleet.wishes()["d00"]
    fleet.report("d00", update="failed", revision=wish.revision, reason="cut off")
    fleet.decide(1)
    assert fleet.wishes()["d00"].revision == wish.revision
    fleet.decide(1000)
    assert fleet.wishes()["d00"].revision == wish.revision + 1


def test_only_the_group_takes_part_and_retired_devices_never_do(
    fleet: SpokenFleet, new: ReleaseRef
) -> None:
    label = fleet.services.groups.label
    label("name=d00,d01,d02,d03,d04,d05", Change(site="oslo"), by="ann", role="operator")
    label("name=d05", Change(retired=True), by="ann", role="operator")
    rollout = start(fleet, new, group="site=oslo")
    assert sum(roles(fleet, rollout).values()) == 5
    with pytest.raises(InvalidRequest, match="no group"):
        fleet.services.rollouts.check(new.name, {"group": "nowhere"})


def test_a_check_says_what_would_happen_and_starts_nothing(
    fleet: SpokenFleet, new: ReleaseRef
) -> None:
    stages = [FIRST, {"kind": "ramp", "devices": 8, "min_devices": 12}]
    found = fleet.services.rollouts.check(new.name, {"stages": stages, "holdout": 0.1})
    assert (found.devices, found.incumbent) == (20, "tiny-motion@1.0.0")
    assert found.stages[0].devices == {"holdout": 2, "candidate": 5, "control": 5, "none": 8}
    assert found.stages[1].devices["candidate"] == 8
    assert any("it would never pass" in text for text in found.warnings)
    assert fleet.services.rollouts.every() == []
    assert running(fleet, new) == set()


def pass_stage(fleet: SpokenFleet, rollout: str) -> RolloutView:
    """Let the present stage pass by a verdict that is not what these tests are about."""
    return fleet.pass_stage(rollout)


def promote(fleet: SpokenFleet, rollout: str) -> None:
    fleet.obey()
    pass_stage(fleet, rollout)
    for _ in range(3):
        fleet.obey()
        fleet.decide(1)
    assert fleet.services.rollouts.one(rollout).state == "promoted"
