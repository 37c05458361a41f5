"""The detector on simulated fleets: seasons, slices, and which kind of drift it is."""

import copy
from collections.abc import Mapping

import numpy as np
import pytest

from fleet_server.domain.drifting.detector import observe
from fleet_server.domain.drifting.expectation import Period, Seen, Settings
from fleet_server.domain.drifting.finding import DriftFinding
from fleet_server.domain.drifting.measures import Channels, WatchedChannel
from fleet_server.domain.drifting.state import EVERYONE, DriftState
from tests.simulators.drifting_fleet import Conditions, Fleet

WEEKS = 4
HOURS = WEEKS * 168
SETTINGS = Settings()
CONDITIONS = Conditions(features=6)

Learned = tuple[Fleet, Channels, DriftState]


@pytest.fixture(scope="module")
def four_weeks() -> Learned:
    """A fleet that was watched for four weeks without an alert."""
    fleet = Fleet(CONDITIONS, 5)
    channels = Channels(
        [
            *(WatchedChannel(name=c.name, kind="input", usual=c.usual) for c in fleet.channels),
            WatchedChannel(name="wrong answers", kind="outcome", usual=(0, 0), ordered=False),
        ]
    )
    state = DriftState(len(channels))
    for hour in range(HOURS):
        found = observe(state, channels, labelled(fleet.hour(hour), 0.1), hour, hour, SETTINGS)
        assert found is None, (hour, found)
    return fleet, channels, state


def labelled(seen: Period, wrong: float) -> Period:
    """With labels for every row."""
    return {
        name: {
            arm: Seen(
                part.rows,
                np.append(part.counts, [round(part.rows * (1 - wrong)), round(part.rows * wrong)]),
            )
            for arm, part in arms.items()
        }
        for name, arms in seen.items()
    }


def go_on(
    learned: Learned, hours: int, *, wrong: float = 0.1, spoil: object = None, **changes: object
) -> tuple[DriftFinding | None, int]:
    """Watch on from there: the first finding, and hours that it took."""
    fleet, channels, state = copy.deepcopy(learned)
    for passed in range(1, hours + 1):
        hour = HOURS + passed - 1
        seen = labelled(fleet.hour(hour, **changes), wrong)  # type: ignore[arg-type]
        if callable(spoil):
            seen = spoil(seen)
        found = observe(state, channels, seen, hour, hour, SETTINGS)
        if found is not None:
            return found, passed
    return None, hours


def moved(seen: Period, channel: int, to: int, share: float) -> Period:
    """Let a share of one channel's rows fall into another bin."""
    size = 13

    def spoilt(part: Seen) -> Seen:
        counts = part.counts.copy()
        own = counts[channel * size : (channel + 1) * size]
        taken = (own * share).astype(np.int64)
        own -= taken
        own[to] += taken.sum()
        return Seen(part.rows, counts)

    return {name: {a: spoilt(p) for a, p in arms.items()} for name, arms in seen.items()}


def test_days_weekends_and_weather_raise_no_alarm(four_weeks: Learned) -> None:
    assert go_on(four_weeks, 4 * 168)[0] is None


def test_half_a_standard_deviation_is_seen_at_once(four_weeks: Learned) -> None:
    found, passed = go_on(four_weeks, 5, shift=0.5, hit=[2])
    assert found is not None
    assert passed == 1
    assert (found.kind, found.channels, found.slices) == ("data", ["f2"], [])


def test_a_shift_of_one_slice_behind_the_others_is_seen_and_named(four_weeks: Learned) -> None:
    found, passed = go_on(four_weeks, 5, shift=-0.6, hit=[3], slices=[1])
    assert found is not None
    assert passed <= 2
    assert found.slices == ["site=1"]
    assert "where site=1" in found.summary
    assert found.figures[0].slice == "site=1"


def test_a_small_shift_that_lasts_is_seen_in_time(four_weeks: Learned) -> None:
    found, _ = go_on(four_weeks, 48, shift=0.15, hit=[4])
    assert found is not None
    assert found.channels[0] == "f4"


@pytest.mark.parametrize(
    ("to", "share", "says"),
    [(12, 0.1, "missing"), (5, 0.6, "one value in"), (0, 0.4, "outside the training range")],
    ids=["nulls", "stuck", "out of range"],
)
def test_a_source_that_breaks_is_told_from_a_world_that_moves(
    four_weeks: Learned, to: int, share: float, says: str
) -> None:
    found, passed = go_on(four_weeks, 3, spoil=lambda seen: moved(seen, 1, to, share))
    assert found is not None
    assert passed == 1
    assert (found.kind, found.response) == ("upstream", "fix-source")
    assert says in found.summary


def test_answers_that_are_wrong_while_inputs_stay_are_a_drift_of_the_concept(
    four_weeks: Learned,
) -> None:
    found, _ = go_on(four_weeks, 6, wrong=0.2)
    assert found is not None
    assert (found.kind, found.response) == ("concept", "rethink")
    assert found.figures[0].now == pytest.approx(0.2, abs=0.01)


def test_a_day_that_looks_like_another_is_a_shift_of_the_season(four_weeks: Learned) -> None:
    fleet, channels, state = copy.deepcopy(four_weeks)
    found = None
    for passed in range(4):  # the clocks went wrong: it is as it should be six hours later
        hour = HOURS + passed
        seen = labelled(fleet.hour(hour + 6), 0.1)
        found = found or observe(state, channels, seen, hour, hour, SETTINGS)
    assert found is not None
    assert (found.kind, found.response) == ("seasonal", "fallback")
    assert found.like_hour is not None


def test_a_new_slice_is_learned_before_it_is_judged(four_weeks: Learned) -> None:
    fleet, channels, state = copy.deepcopy(four_weeks)
    for passed in range(30):
        hour = HOURS + passed
        seen: Mapping[str, Mapping[str, Seen]] = labelled(fleet.hour(hour), 0.1)
        far = labelled(fleet.hour(hour, shift=2.0, hit=[0]), 0.1)["site=2"]
        seen = {**seen, "site=9": far, EVERYONE: seen[EVERYONE]}
        assert observe(state, channels, seen, hour, hour, SETTINGS) is None
    assert "site=9" in state.memory.slices
