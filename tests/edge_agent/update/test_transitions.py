from edge_agent.update import transitions
from edge_agent.update.transitions import ON_RESTART, STATES, TABLE, Action, Event

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


def test_starts_in_probation_are_bounded() -> None:
    assert transitions.restart("probation", 3, 3) == TABLE["probation", Event.RESUME]
    row = transitions.restart("probation", 4, 3)
    assert row is not None
    assert row.action is Action.RECOVER
