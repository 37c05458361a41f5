"""What scores and features do not tell, the embedding's projections do; and quietly otherwise."""

import copy

import numpy as np
import pytest

from fleet_server.domain.drifting.detector import observe
from fleet_server.domain.drifting.expectation import Settings
from fleet_server.domain.drifting.finding import DriftFinding
from fleet_server.domain.drifting.measures import Channels
from fleet_server.domain.drifting.state import DriftState
from tests.simulators.embedding_fleet import FEATURES, Conditions, EmbeddingFleet

HOURS = 2 * 168
SETTINGS = Settings()
CONDITIONS = Conditions()
HALF = 0.5 * np.sqrt(CONDITIONS.size)
"""Length of a shift that is half a standard deviation of every coordinate, on average."""

Learned = tuple[EmbeddingFleet, Channels, DriftState]


@pytest.fixture(scope="module", params=[5, 6])
def two_weeks(request: pytest.FixtureRequest) -> Learned:
    """A fleet that was watched for two weeks without an alert."""
    fleet = EmbeddingFleet(CONDITIONS, request.param)
    channels = Channels(fleet.channels)
    state = DriftState(len(channels))
    for hour in range(HOURS):
        found = observe(state, channels, fleet.hour(hour), hour, hour, SETTINGS)
        assert found is None, (hour, found)
    return fleet, channels, state


def go_on(learned: Learned, hours: int, length: float) -> tuple[DriftFinding | None, int]:
    """Watch on with a hidden shift: the first finding, and hours that it took."""
    fleet, channels, state = copy.deepcopy(learned)
    shift = fleet.hidden(length)
    for passed in range(1, hours + 1):
        hour = HOURS + passed - 1
        found = observe(state, channels, fleet.hour(hour, shift), hour, hour, SETTINGS)
        if found is not None:
            return found, passed
    return None, hours


def test_a_shift_that_no_score_shows_is_seen_in_the_embedding(two_weeks: Learned) -> None:
    found, passed = go_on(two_weeks, 6, HALF)
    assert found is not None
    assert passed <= 2
    assert {figure.kind for figure in found.figures} == {"embedding"}
    assert (found.kind, found.response) == ("prediction", "rethink")
    assert found.summary.startswith("prediction drift in embedding[")
    assert found.summary.endswith("; neither inputs nor scores tell of it")


def test_without_the_embedding_nobody_sees_it(two_weeks: Learned) -> None:
    fleet, channels, _ = two_weeks
    blind = Channels([c for c in channels.channels if c.kind != "embedding"])
    keep = np.concatenate([np.full(c.size, c.kind != "embedding", bool) for c in channels.channels])
    fleet, state = copy.deepcopy(fleet), DriftState(len(blind))
    shift = fleet.hidden(2 * HALF)
    for hour in range(HOURS):
        seen = fleet.hour(hour, shift if hour >= HOURS - 24 else 0.0)
        told = {
            name: {arm: part._replace(counts=part.counts[keep]) for arm, part in arms.items()}
            for name, arms in seen.items()
        }
        assert observe(state, blind, told, hour, hour, SETTINGS) is None


def test_no_shift_raises_no_alarm(two_weeks: Learned) -> None:
    assert go_on(two_weeks, 2 * 168, 0.0)[0] is None


def test_a_shift_that_scores_show_is_told_by_the_scores_first(two_weeks: Learned) -> None:
    fleet, channels, state = copy.deepcopy(two_weeks)
    found = None
    for passed in range(6):
        hour = HOURS + passed
        seen = fleet.hour(hour, fleet.read(HALF))
        found = found or observe(state, channels, seen, hour, hour, SETTINGS)
    assert found is not None
    kinds = [figure.kind for figure in found.figures]
    assert kinds[0] == "score"
    assert "embedding" in kinds
    assert found.kind == "prediction"
    assert "embedding" not in found.summary


def test_the_channels_are_those_of_the_reference(two_weeks: Learned) -> None:
    fleet, channels, _ = two_weeks
    assert [c.name for c in channels.channels][FEATURES:-2] == [
        f"embedding[{place}]" for place in range(CONDITIONS.directions)
    ]
    assert channels.total == sum(c.size for c in fleet.reference.channels)
