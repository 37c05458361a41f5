"""The detector on the flights of 2013, with a model of January to May."""

import copy
import datetime

import pytest

from fleet_server.domain.drifting.detector import observe
from fleet_server.domain.drifting.expectation import Settings
from fleet_server.domain.drifting.finding import DriftFinding
from fleet_server.domain.drifting.state import DriftState
from tests.simulators.flying_fleet import Flights, day_of

JUNE, THANKSGIVING_IS_OVER = day_of(2013, 6, 1), day_of(2013, 12, 2)
NEVER = Settings(learning_periods=10_000)


@pytest.fixture(scope="module")
def flights() -> Flights:
    return Flights()


def replay(
    flights: Flights, state: DriftState, first: int, last: int, settings: Settings
) -> list[DriftFinding]:
    """What is found on the days in [first, last)."""
    found = [
        observe(state, flights.channels, flights.day(day), day, 24 * day, settings)
        for day in range(first, last)
    ]
    return [finding for finding in found if finding is not None]


@pytest.fixture(scope="module")
def trained(flights: Flights) -> DriftState:
    """Knows January to May, a blizzard included, as the model does."""
    state = DriftState(len(flights.channels))
    assert not replay(flights, state, day_of(2013, 1, 1), JUNE, NEVER)
    return state


def test_the_days_that_the_model_was_trained_on_raise_no_alarm(
    flights: Flights, trained: DriftState
) -> None:
    state = copy.deepcopy(trained)
    assert not replay(flights, state, day_of(2013, 1, 1), JUNE, Settings())


def test_summer_and_fall_are_told_before_thanksgiving_with_a_cause(
    flights: Flights, trained: DriftState
) -> None:
    state = copy.deepcopy(trained)
    found = replay(flights, state, JUNE, THANKSGIVING_IS_OVER, Settings())
    opened = [finding for finding in found if finding.open]
    assert opened
    late = [name for name in opened[0].channels if "late" in name or "delay" in name]
    assert late, "flights of summer are late more often, and its routes are known for it"
    assert opened[0].kind == "data"
    assert opened[0].slices
    began = datetime.date(1970, 1, 1) + datetime.timedelta(days=opened[0].since)
    assert began >= datetime.date(2013, 6, 1)


def test_a_fleet_that_begins_in_june_sees_the_punctual_fall(flights: Flights) -> None:
    state = DriftState(len(flights.channels))
    found = replay(flights, state, JUNE, THANKSGIVING_IS_OVER, Settings())
    first = next(finding for finding in found if finding.open)
    assert "route_late_30d" in first.channels
    assert first.figures[0].now < first.figures[0].usual
