"""A sequential detector over merged periods of one release, in all rows and in each slice.

Fleets differ from training data by nature, so what is usual of each figure, by the hour of the day
and of the week, and how far it wanders from that, are learned from the release's first periods in
production, and go on being learned from the usual ones among the next. How far a figure departs
from what was expected is staked on (:mod:`betting`); the mean capital over all figures of all
channels and slices opens an alert, so that many figures cost power and never false alerts.

Rows of a candidate are left out: its few devices are no fair sample of the fleet. What they
sense is seen through the incumbent, which runs beside the candidate on the same rows (arm
``shadow`` of the incumbent).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fleet_server.domain.drifting import betting, expectation, learning, reporting
from fleet_server.domain.drifting.expectation import Period, Seen, Settings, View
from fleet_server.domain.drifting.finding import DriftFinding
from fleet_server.domain.drifting.measures import MEASURES, POSITION, RISES, Channels
from fleet_server.domain.drifting.state import EVERYONE, DriftState

CLEAR_PERIODS = 2
PROVEN = 9.0
"""Log capital at which a figure takes part in a drift that is sure, however small it is now."""
USUAL, LEAST_USUAL = 3.0, 1.0
"""Standard deviations within which a drift's figures have to come back, by how far they were."""
CLEARLY = 3.5
"""Standard deviations at which a figure takes part in a drift that is sure."""
GROWING_PERIODS = 5
"""So long after it has opened, a drift takes in what drifts beside it."""

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


def observe(
    state: DriftState,
    channels: Channels,
    seen: Period,
    period: int,
    hour: int,
    settings: Settings,
    noise: Float64 | None = None,
) -> DriftFinding | None:
    """Take one finished period of one release into the state.

    Args:
        state: changed in place.
        channels: the release's.
        seen: arms of all rows and of each slice.
        period: its number, rising.
        hour: in which it began, counted since 1970, UTC.
        settings: see :class:`Settings`.
        noise: by channel, standard deviation of one count for privacy over the channel's sum.

    Returns:
        A finding when a drift opened, took in more figures, or ended in this period.
    """
    seen = {name: _without_candidate(arms) for name, arms in seen.items()}
    if sum(arm.rows for arm in seen.get(EVERYONE, {}).values()) < settings.min_rows:
        return None
    new = [name for name in sorted(seen) if name not in state.memory.slices]
    if new:
        state.grow(new)
    state.memory.judged = period
    if state.season.turn(hour):
        state.season_changed = True
    view = expectation.view_of(state, channels, seen, period, settings, noise)
    _bet(state, view)
    opened = state.memory.since is not None
    if opened:
        return _watch_end(state, channels, view, seen, settings)
    found = _watch_begin(state, channels, view, seen, settings)
    if found is None:
        learning.learn(state, view)
    return found


def _without_candidate(arms: Mapping[str, Seen]) -> dict[str, Seen]:
    return {arm: seen for arm, seen in arms.items() if arm != "candidate"}


def _bet(state: DriftState, view: View) -> None:
    """A figure of which nothing can be said keeps what it has."""
    gains = betting.log_e(view.z, expectation.hanging_together(state), ~RISES)
    gain = np.where(view.usable[..., None], gains, 0.0)
    state.capital = np.maximum(state.capital + gain, 0.0)
    rising = state.capital > 0
    state.risen = np.where(rising, np.where(state.risen < 0, view.number, state.risen), -1)


def _enough(state: DriftState, channels: Channels, settings: Settings) -> bool:
    return betting.log_weighted(state.capital, _weights(state, channels)) >= math.log(
        settings.periods_a_false_alert
    )


def _weights(state: DriftState, channels: Channels) -> Float64:
    """Half of the bets are on all rows, half on slices; half on positions, half on the rest."""
    slices = np.full(len(state.memory.slices), 0.5 / max(1, len(state.memory.slices) - 1))
    slices[0] = 0.5 if len(slices) > 1 else 1.0
    measures = np.where(np.arange(len(MEASURES)) == POSITION, 0.5, 0.5 / (len(MEASURES) - 1))
    found = slices[:, None, None] * measures * channels.applies
    bettors = np.stack([found, found / 2, np.where(RISES, 0.0, found / 2)], axis=-1)
    return np.asarray(bettors / bettors.sum(), np.float64)


def _watch_begin(
    state: DriftState,
    channels: Channels,
    view: View,
    seen: Period,
    settings: Settings,
) -> DriftFinding | None:
    """Open a drift on enough evidence, while something departs."""
    clear = _clear(state, view)
    if not clear.any() or not _enough(state, channels, settings):
        return None
    state.memory.drifted, state.memory.quiet, state.memory.opened = _places(clear), 0, view.number
    state.memory.limits = _limits(view, state.memory.drifted)
    surest = np.argmax(np.where(clear[..., None], state.capital, -1.0))
    state.memory.since = int(state.risen.flat[surest])
    return reporting.report(state, channels, view, seen, settings, opened=True)


def _watch_end(
    state: DriftState,
    channels: Channels,
    view: View,
    seen: Period,
    settings: Settings,
) -> DriftFinding | None:
    """End a drift after a few periods in a row in which its figures were as usual."""
    places = state.memory.drifted
    if view.number - state.memory.opened <= GROWING_PERIODS and (new := _joined(state, view)):
        state.memory.drifted = [*places, *new]
        state.memory.limits += _limits(view, new)
        return reporting.report(state, channels, view, seen, settings, opened=True)
    usual_again = all(
        abs(float(view.t[place])) < limit
        for place, limit in zip(places, state.memory.limits, strict=True)
    )
    state.memory.quiet = state.memory.quiet + 1 if usual_again else 0
    if state.memory.quiet < CLEAR_PERIODS:
        return None
    found = reporting.report(state, channels, view, seen, settings, opened=False)
    state.rest()
    return found


def _joined(state: DriftState, view: View) -> list[tuple[int, int, int]]:
    """Figures that drift as well: a drift that begins within a period touches some only then."""
    clear = _clear(state, view)
    return [place for place in _places(clear) if place not in state.memory.drifted]


def _limits(view: View, places: Sequence[tuple[int, int, int]]) -> list[float]:
    """Within how many standard deviations figures are as usual again: half of what they were."""
    return [float(np.clip(abs(view.t[place]) / 2, LEAST_USUAL, USUAL)) for place in places]


def _clear(state: DriftState, view: View) -> Bool:
    """Figures that depart now, or have for long."""
    now = np.where(RISES, view.t, np.abs(view.t)) >= CLEARLY
    proven = state.capital.max(axis=-1) >= PROVEN
    found: Bool = np.logical_and(np.logical_or(now, proven), state.capital.max(axis=-1) > 0)
    return found


def _places(clear: Bool) -> list[tuple[int, int, int]]:
    return [(int(s), int(c), int(m)) for s, c, m in zip(*np.nonzero(clear), strict=True)]
