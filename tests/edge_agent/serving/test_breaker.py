import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.serving.breaker import TABLE, Breaker, Event, Limits, State

LIMITS = Limits(
    failures_in_a_row=3,
    failure_share=0.5,
    share_batches=10,
    pause_seconds=5.0,
    longest_pause_seconds=30.0,
)


def opened() -> Breaker:
    breaker = Breaker(LIMITS)
    for _ in range(3):
        assert breaker.asks(0.0)
        breaker.failed(0.0)
    return breaker


def test_the_table_knows_every_event_in_every_state() -> None:
    assert set(TABLE) == set(itertools.product(State, Event))


def test_failures_in_a_row_open_it() -> None:
    breaker = Breaker(LIMITS)
    for outcome in (breaker.failed, breaker.failed, breaker.answered, breaker.failed):
        outcome(0.0)
    assert breaker.state is State.CLOSED
    breaker.failed(0.0)
    breaker.failed(0.0)
    assert breaker.state is State.OPEN
    assert not breaker.asks(4.9)


def test_a_share_of_failures_opens_it_once_enough_was_asked() -> None:
    breaker = Breaker(LIMITS)
    for _ in range(4):
        breaker.failed(0.0)
        breaker.answered(0.0)
    assert breaker.state is State.CLOSED, "eight batches are not yet ten"
    breaker.answered(0.0)
    breaker.failed(0.0)
    assert breaker.state is State.OPEN


def test_the_pause_ends_with_one_try_that_decides() -> None:
    breaker = opened()
    assert not breaker.asks(4.99)
    assert breaker.asks(5.0)
    assert breaker.state is State.HALF_OPEN
    breaker.answered(5.0)
    assert breaker.state is State.CLOSED
    breaker.failed(5.0)
    assert breaker.state is State.CLOSED, "earlier failures are forgotten"


def test_each_failed_try_doubles_the_pause_up_to_the_longest() -> None:
    breaker, now = opened(), 0.0
    for pause in (5.0, 10.0, 20.0, 30.0, 30.0):
        assert not breaker.asks(now + pause - 0.01)
        now += pause
        assert breaker.asks(now)
        breaker.failed(now)
    assert breaker.opened == 6
    assert breaker.asks(now + 30.0)
    breaker.answered(now + 30.0)
    for _ in range(3):
        breaker.failed(now + 30.0)
    assert breaker.asks(now + 35.0), "the next trouble begins with the short pause again"


@given(st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=200))
def test_it_never_asks_twice_in_a_row_after_a_failed_try(steps: list[tuple[float, bool]]) -> None:
    breaker, now = Breaker(LIMITS), 0.0
    for step, works in steps:
        now += step
        trying = breaker.state is not State.CLOSED
        if not breaker.asks(now):
            assert breaker.state is State.OPEN
            continue
        (breaker.answered if works else breaker.failed)(now)
        if trying:
            assert breaker.state is (State.CLOSED if works else State.OPEN)
            assert works or not breaker.asks(now)


@pytest.mark.parametrize(("field", "value"), [("failures_in_a_row", 0), ("failure_share", 0.0)])
def test_settings_out_of_range_are_refused_where_they_are_read(field: str, value: float) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({field: value}, Limits)
