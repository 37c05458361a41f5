"""The rollout's table, step by step."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_core.release import ReleaseRef
from fleet_server.domain import rollout
from fleet_server.domain.cohort import Role
from fleet_server.domain.evidence import Member
from fleet_server.domain.plan import DEFAULT_PLAN
from fleet_server.domain.rollout import FINISHED, STATES, TABLE, Event, State, Transition
from fleet_server.domain.verdict import Decision, Verdict

STAGES = DEFAULT_PLAN.stages
OLD = ReleaseRef.of("watch-activity@1.0.0", "0" * 64)
NEW = ReleaseRef.of("watch-activity@1.1.0", "1" * 64)


def member(place: int, role: Role = "candidate", **facts: Any) -> Member:
    return Member(device=f"d{place}", role=role, **{"confirmed": True} | facts)


THERE = [member(0), member(1), member(2, "control"), member(3, "none")]


def step(
    state: State,
    decision: Decision | None = None,
    *,
    stage: int = 0,
    members: list[Member] | None = None,
    elapsed: float = 60.0,
    approved: bool = True,
) -> Transition | None:
    return rollout.step(
        state=state,
        stage=stage,
        plan=DEFAULT_PLAN,
        stages=STAGES,
        verdict=None if decision is None else Verdict(decision=decision, reason="because"),
        members=THERE if members is None else members,
        approved=approved,
        waited_seconds=elapsed,
    )


def test_every_state_and_event_is_decided() -> None:
    assert set(TABLE) == set(STATES)
    for state, row in TABLE.items():
        assert set(row) == set(Event), state
        assert all(following is None or following in STATES for following in row.values())


def test_a_stored_state_that_this_server_does_not_know_is_rolled_back() -> None:
    assert [rollout.known(state) for state in STATES] == list(STATES)
    assert rollout.known("cautious") == "rolling_back"


def test_every_state_can_be_reached_and_left_unless_it_is_an_end() -> None:
    reached = {following for row in TABLE.values() for following in row.values()} - {None}
    assert reached | {"running"} == set(STATES)
    for state, row in TABLE.items():
        left = {following for following in row.values() if following not in (None, state)}
        assert bool(left) == (state not in FINISHED)


def test_an_operator_can_roll_back_whatever_has_not_begun_to_end() -> None:
    for state in ("running", "paused", "inconclusive", "promoting"):
        assert rollout.apply(state, Event.ROLL_BACK) == "rolling_back"


def test_stages_follow_one_another_and_the_last_one_promotes() -> None:
    for stage in range(len(STAGES) - 1):
        moved = step("running", "promote", stage=stage)
        assert moved == Transition(Event.STAGE_PASSED, "running", stage + 1, "because")
    last = step("running", "promote", stage=len(STAGES) - 1)
    assert last == Transition(Event.LAST_PASSED, "promoting", len(STAGES) - 1, "because")


@pytest.mark.parametrize("state", ["running", "paused", "inconclusive"])
def test_a_worse_release_is_rolled_back_from_every_state_it_serves_in(state: State) -> None:
    moved = step(state, "rollback")
    assert moved is not None
    assert (moved.event, moved.state) == (Event.WORSE, "rolling_back")


@pytest.mark.parametrize("state", ["running", "paused", "inconclusive", "promoting"])
def test_a_revoked_release_is_rolled_back_whatever_its_figures_say(state: State) -> None:
    moved = step(state, "promote", approved=False)
    assert moved is not None
    assert (moved.event, moved.state) == (Event.WORSE, "rolling_back")
    assert "no longer approved" in moved.reason
    assert step("promoted", "promote", approved=False) is None
    back = step("rolling_back", approved=False)
    assert back is not None
    assert back.state == "rolled_back"


@pytest.mark.parametrize("state", ["paused", "inconclusive"])
def test_nothing_is_promoted_without_the_person_who_was_asked(state: State) -> None:
    assert step(state, "promote") is None
    assert step(state, "hold", elapsed=1e9) is None


def test_the_deadline_asks_a_person() -> None:
    assert step("running", "hold", elapsed=DEFAULT_PLAN.deadline_seconds) is None
    moved = step("running", "hold", elapsed=DEFAULT_PLAN.deadline_seconds + 1)
    assert moved is not None
    assert moved.state == "inconclusive"
    assert "because" in moved.reason
    # One that passes at the last moment passes.
    late = step("running", "promote", elapsed=DEFAULT_PLAN.deadline_seconds + 1)
    assert late is not None
    assert late.state == "running"


def test_without_a_verdict_a_stage_stays() -> None:
    assert step("running", None, elapsed=1e9) is None


@pytest.mark.parametrize(
    ("state", "end"), [("promoting", "promoted"), ("rolling_back", "rolled_back")]
)
def test_a_rollout_ends_when_every_device_that_is_heard_has_confirmed(
    state: State, end: State
) -> None:
    waiting = [*THERE, member(4, confirmed=False)]
    assert step(state, members=waiting) is None
    moved = step(state, members=THERE)
    assert moved is not None
    assert (moved.state, moved.reason) == (end, "4 devices confirmed")
    silent = step(state, members=[*THERE, member(4, confirmed=False, silent=True)])
    assert silent is not None
    assert silent.state == end
    assert "1 silent" in silent.reason


def test_a_device_that_cannot_go_back_is_named_and_holds_up_nobody() -> None:
    stuck = member(4, confirmed=False, refused=True)
    moved = step("rolling_back", members=[*THERE, stuck])
    assert moved is not None
    assert (moved.event, moved.state) == (Event.STRANDED, "rolled_back")
    assert "1 could not go back: d4" in moved.reason
    many = [member(place, confirmed=False) for place in range(20)]
    late = step("rolling_back", members=many, elapsed=DEFAULT_PLAN.deadline_seconds + 1)
    assert late is not None
    assert (late.event, late.state) == (Event.STRANDED, "rolled_back")
    assert "d4 and 15 more" in late.reason


def test_a_promotion_that_does_not_end_asks_a_person_and_goes_on() -> None:
    late = DEFAULT_PLAN.deadline_seconds + 1
    for members in ([*THERE, member(4, confirmed=False)], []):
        moved = step("promoting", members=members, elapsed=late)
        assert moved is not None
        assert (moved.event, moved.state) == (Event.DEADLINE, "promoting")


def test_a_promotion_that_nobody_confirms_does_not_end() -> None:
    assert step("promoting", members=[]) is None
    assert step("promoting", members=[member(0, silent=True, confirmed=False)]) is None


def test_many_refusals_in_the_last_spread_roll_back() -> None:
    refusing = [member(place, "none", confirmed=False, refused=True) for place in range(4, 6)]
    moved = step("promoting", members=[*THERE, *refusing])
    assert moved is not None
    assert moved.state == "rolling_back"
    assert "2 of 6 devices refused" in moved.reason
    few = step("promoting", members=[*THERE, *THERE, refusing[0]])
    assert few is not None
    assert few.state == "promoted"
    assert "1 refused" in few.reason


@given(
    walk=st.lists(
        st.tuples(
            st.sampled_from(["promote", "hold", "rollback", None]),
            st.sampled_from([Event.PAUSE, Event.RESUME, Event.ROLL_BACK, None]),
            st.lists(
                st.builds(
                    Member,
                    device=st.just("d"),
                    role=st.sampled_from(["candidate", "control", "none"]),
                    confirmed=st.booleans(),
                    refused=st.booleans(),
                    silent=st.booleans(),
                ),
                max_size=4,
            ),
            st.sampled_from([0.0, 60.0, 1e9]),
            st.booleans(),
        ),
        max_size=20,
    )
)
def test_no_walk_leaves_the_table_or_an_end(walk: list[Any]) -> None:
    """A restart between any two steps changes nothing, because all state is in the values."""
    state: State = "running"
    stage = 0
    for decision, steered, members, elapsed, approved in walk:
        moved = step(
            state, decision, stage=stage, members=members, elapsed=elapsed, approved=approved
        )
        if moved is not None:
            assert state not in FINISHED
            assert TABLE[state][moved.event] == moved.state
            assert moved.stage in (stage, stage + 1)
            state, stage = moved.state, moved.stage
        if steered is not None:
            state = rollout.apply(state, steered) or state
        assert state in STATES
        assert 0 <= stage < len(STAGES)


def wanted(state: State, role: Role, incumbent: ReleaseRef | None = OLD, stage: int = 1) -> Any:
    found = rollout.wanted(
        state=state, stage=STAGES[stage], role=role, candidate=NEW, incumbent=incumbent
    )
    return (found.active, found.shadow, found.arm)


@pytest.mark.parametrize("state", ["running", "paused", "inconclusive"])
def test_devices_keep_their_role_while_a_stage_lasts(state: State) -> None:
    assert wanted(state, "candidate") == (NEW, OLD, "candidate")
    assert wanted(state, "control") == (OLD, None, "control")
    assert wanted(state, "none") == (OLD, None, "incumbent")
    assert wanted(state, "shadow", stage=0) == (OLD, NEW, "incumbent")


@pytest.mark.parametrize("role", ["candidate", "control", "none", "shadow"])
def test_at_the_end_all_devices_run_the_same(role: Role) -> None:
    for state in ("promoting", "promoted"):
        assert wanted(state, role) == (NEW, None, "incumbent")
    for state in ("rolling_back", "rolled_back"):
        assert wanted(state, role) == (OLD, None, "incumbent")


def test_a_first_release_has_nothing_beside_it_and_goes_back_to_nothing() -> None:
    assert wanted("running", "candidate", None) == (NEW, None, "candidate")
    assert wanted("running", "shadow", None) == (None, None, "incumbent")
    assert wanted("running", "control", None) == (None, None, "control")
    assert wanted("rolled_back", "candidate", None) == (None, None, "incumbent")


def test_a_transition_can_be_stored() -> None:
    moved = step("running", "promote")
    assert msgspec.convert(msgspec.to_builtins(moved), Transition) == moved
