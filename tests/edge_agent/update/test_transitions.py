from hypothesis import given
from hypothesis import strategies as st

from edge_agent.update import transitions
from edge_agent.update.transitions import ON_RESTART, STATES, TABLE, Action, Event
from edge_core.messages.telemetry import UpdateState

WORKING = {
    "downloading": Action.DOWNLOAD,
    "verifying": Action.VERIFY,
    "self_testing": Action.SELF_TEST,
    "shadowing": Action.LOAD_SHADOW,
    "activating": Action.ACTIVATE,
    "probation": Action.WATCH,
    "recovering": Action.RECOVER,
}


def test_every_state_takes_a_new_wish_and_begins_with_the_download() -> None:
    for state in STATES:
        row = TABLE[state, Event.DESIRED]
        assert (row.next, row.action) == ("downloading", Action.DOWNLOAD)


def test_every_working_state_has_a_way_on_and_a_way_out() -> None:
    for state in WORKING:
        assert (state, Event.DONE) in TABLE
        assert (state, Event.REFUSED) in TABLE


def test_entering_a_working_state_does_its_work() -> None:
    for row in TABLE.values():
        if row.next in WORKING:
            assert row.action is WORKING[row.next]
        else:
            assert row.action in (Action.CLEAN_UP, Action.STAND_DOWN)


def test_every_state_says_how_it_goes_on_after_a_restart() -> None:
    assert set(ON_RESTART) == set(STATES)
    for state, event in ON_RESTART.items():
        assert event is None or (state, event) in TABLE
        assert (event is None) == (state not in WORKING)


def test_before_the_pointer_switch_a_restart_begins_again() -> None:
    for state in ("downloading", "verifying", "self_testing", "shadowing", "activating"):
        row = transitions.restart(state, 1, 3)
        assert row is not None
        assert row.action is Action.DOWNLOAD


def test_an_unknown_stored_state_recovers() -> None:
    row = transitions.restart("from_the_future", 1, 3)
    assert row is not None
    assert row.action is Action.RECOVER


def test_what_ends_the_process_has_to_go_in_every_state() -> None:
    for state in STATES:
        row = transitions.restart(state, 0, 3, crashing=True)
        assert row is not None
        assert row.action is Action.RECOVER
        assert ((state, Event.CRASHING) in TABLE) == (state != "recovering")


def test_a_release_that_is_tried_is_blamed_before_the_one_that_serves() -> None:
    for state in ("verifying", "self_testing", "shadowing", "committed"):
        row = transitions.restart(state, 4, 3, crashing=True)
        assert row == TABLE[state, Event.GIVE_UP]
        assert row.action is Action.CLEAN_UP


@given(st.sampled_from(STATES), st.integers(0, 3), st.integers(0, 3))
def test_a_process_that_always_dies_gives_up_after_a_bounded_number_of_starts(
    state: UpdateState, starts: int, unhealthy: int
) -> None:
    for _ in range(30):
        starts += transitions.counts(state)
        unhealthy += not transitions.counts(state)
        row = transitions.restart(state, starts, 3, crashing=unhealthy > 3)
        if row is None:
            continue  # it rests, and serves until it dies again
        if row.action in (Action.RECOVER, Action.STAND_DOWN):
            return
        if row.action is Action.CLEAN_UP:
            state, starts, unhealthy = row.next, 0, 0
        elif not transitions.begins_again(state):
            state = row.next
    raise AssertionError(f"{state} never gives up")


def test_starts_in_probation_are_bounded() -> None:
    assert transitions.restart("probation", 3, 3) == TABLE["probation", Event.RESUME]
    row = transitions.restart("probation", 4, 3)
    assert row is not None
    assert row.action is Action.RECOVER
