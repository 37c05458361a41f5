"""What is said of a drift: its figures, its arms, and the hour that it looks like."""

import numpy as np

from fleet_server.domain.drifting import finding
from fleet_server.domain.drifting.expectation import Period, Settings, View
from fleet_server.domain.drifting.finding import DriftFinding, Figure
from fleet_server.domain.drifting.measures import DEAD, FLOOR, MEASURES, SHARES, Channels
from fleet_server.domain.drifting.measures import share as as_share
from fleet_server.domain.drifting.state import DriftState

SEASON_WEEKS = 2
"""Weeks of history before a drift can be told to look like another hour."""
LIKE_ANOTHER = 2.5
LARGEST_LOG_E = 700.0


def report(
    state: DriftState,
    channels: Channels,
    view: View,
    seen: Period,
    settings: Settings,
    *,
    opened: bool,
) -> DriftFinding:
    """Tell of the drift in the state, which begins or goes on, or ends."""
    figures = [_figure(state, channels, view, place) for place in state.memory.drifted]
    lead = min(range(len(figures)), key=lambda at: finding.rank(figures[at]))
    assert state.memory.since is not None
    return finding.describe(
        figures,
        _by_arm(state, channels, view, seen, state.memory.drifted[lead], settings),
        watched=state.memory.slices,
        since=state.memory.since,
        opened=opened,
        like_hour=_like_another_hour(state, view),
    )


def _figure(
    state: DriftState, channels: Channels, view: View, place: tuple[int, int, int]
) -> Figure:
    slice_, channel, measure = place
    unit = as_share if SHARES[measure] else float
    return Figure(
        channel=channels.channels[channel].name,
        kind=channels.channels[channel].kind,
        measure=MEASURES[measure],
        slice=state.memory.slices[slice_],
        usual=unit(view.expected[place]),
        now=unit(view.values[place]),
        deviations=abs(float(view.t[place])),
        e=float(np.exp(min(state.capital[place].max(), LARGEST_LOG_E))),
    )


def _by_arm(
    state: DriftState,
    channels: Channels,
    view: View,
    seen: Period,
    place: tuple[int, int, int],
    settings: Settings,
) -> dict[str, float]:
    """Departure of the leading figure on each arm with enough rows, in standard deviations.

    Beside the incumbent's other arms, its shadow stands for the devices of the candidate.
    """
    slice_, channel, measure = place
    arms = seen.get(state.memory.slices[slice_], {})
    serving = {"incumbent", "control"} & arms.keys()
    found = {}
    for arm, part in sorted(arms.items()):
        if part.rows < settings.min_rows / 10:
            continue
        counts = np.maximum(np.asarray(part.counts, np.float64), 0.0)[None]
        value = channels.measure(counts)[0, channel, measure]
        away = (value - view.expected[place]) / view.spread[place]
        found["candidate" if arm == "shadow" and serving else arm] = float(away)
    return found


def _like_another_hour(state: DriftState, view: View) -> int | None:
    """The hour of the week that looks as this period does, where every drifting figure fits it."""
    if state.season.weeks < SEASON_WEEKS:
        return None
    places = tuple(np.array(state.memory.drifted).T)
    for away in sorted(range(1, 168), key=lambda hours: min(hours, 168 - hours)):
        hour = state.season.hour + away
        other = state.season.expected(hour, state.level, state.variance + FLOOR**2)
        error = np.abs(view.values - other)[places]
        if (error <= LIKE_ANOTHER * view.spread[places] + DEAD[places[2]]).all():
            return (state.season.hour + away) % 168
    return None
