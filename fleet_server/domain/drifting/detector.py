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
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from fleet_server.domain.drifting import betting, finding
from fleet_server.domain.drifting.finding import DriftFinding, Figure
from fleet_server.domain.drifting.measures import (
    DEAD,
    FLOOR,
    MEASURES,
    POSITION,
    RISES,
    SHARES,
    Channels,
)
from fleet_server.domain.drifting.measures import share as as_share
from fleet_server.domain.drifting.state import EVERYONE, DriftState

CLEAR_PERIODS = 2
LEAST_SEEN = 0.1
"""Part of the variance that is seen of errors that hang together, at least."""
BY_CHANCE = 1.0
"""Kurtosis that a sample of normal errors may well have too much."""
RARE = 12.0
"""Standard deviations up to which a rare error tells how heavy the tails are."""
MOST_HANGING = 0.98
LENT_FREEDOM = 6.0
"""Degrees of freedom that the other channels lend to each."""
FEW_TRIALS = 10
"""So many errors say half of how they hang together."""
LARGE = 3.0
"""Standard deviations beyond which an error in an hour that was never seen tells of the season."""
PROVEN = 9.0
"""Log capital at which a figure takes part in a drift that is sure, however small it is now."""
USUAL, LEAST_USUAL = 3.0, 1.0
"""Standard deviations within which a drift's figures have to come back, by how far they were."""
CLEARLY = 3.5
"""Standard deviations at which a figure takes part in a drift that is sure."""
GROWING_PERIODS = 3
"""So long after it has opened, a drift takes in what drifts beside it."""
MEMORY_PERIODS = 672
ERRORS_KEPT = 168
MOST_FREEDOM = 100
SEASON_WEEKS = 2
"""Weeks of history before a drift can be told to look like another hour."""
LIKE_ANOTHER = 2.5
LARGEST_LOG_E = 700.0

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How the detector learns and how sure it has to be."""

    learning_periods: int = 8
    """Periods before the first alert is possible."""
    periods_a_false_alert: float = 2184.0
    """One false alert in so many periods at most: a quarter of hours."""
    min_rows: int = 100
    """Fewer say nothing."""


class Seen(NamedTuple):
    """What one slice's devices saw in one period on one arm."""

    rows: int
    counts: Int64
    """[total], flat for all channels."""


Period = Mapping[str, Mapping[str, Seen]]
"""Slice -> arm -> what was seen; :data:`EVERYONE` holds all rows."""


class _View(NamedTuple):
    """One period beside what was expected; arrays are [slices, channels, measures]."""

    number: int
    values: Float64
    expected: Float64
    error: Float64
    spread: Float64
    """Standard deviation of the error."""
    t: Float64
    """Departures in standard deviations, 0 where nothing can be said."""
    z: Float64
    """As standard normal deviates."""
    usable: Bool
    rows: Float64
    """[slices, channels]."""
    fewer: Float64
    """How many times fewer they are than usual, at least 1."""
    own: Float64
    """Variance of the error by chance alone."""
    doubt: Float64
    """Variance by ignorance of the season."""
    told: Bool
    """[slices, channels]: enough rows."""


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
    view = _view(state, channels, _stacked(state, channels, seen), period, settings, noise)
    _bet(state, view)
    opened = state.memory.since is not None
    if opened:
        return _watch_end(state, channels, view, seen, settings)
    found = _watch_begin(state, channels, view, seen, settings)
    if found is None:
        _learn(state, view)
    return found


def _without_candidate(arms: Mapping[str, Seen]) -> dict[str, Seen]:
    return {arm: seen for arm, seen in arms.items() if arm != "candidate"}


def _stacked(
    state: DriftState, channels: Channels, seen: Mapping[str, Mapping[str, Seen]]
) -> Float64:
    """Counts of all arms: [slices, total]."""
    counts = np.zeros((len(state.memory.slices), channels.total))
    for at, name in enumerate(state.memory.slices):
        for arm in seen.get(name, {}).values():
            counts[at] += arm.counts
    return np.maximum(counts, 0.0)  # noise for privacy may leave less than nothing


def _view(
    state: DriftState,
    channels: Channels,
    counts: Float64,
    number: int,
    settings: Settings,
    noise: Float64 | None,
) -> _View:
    rows = channels.rows(counts)
    told = rows >= settings.min_rows
    values = channels.measure(counts)
    fewer = np.maximum(1.0, state.rows / np.maximum(rows, 1.0))[..., None]
    own = state.variance + FLOOR**2
    doubt = state.season.doubt() ** 2
    expected = state.season.expected(state.season.hour, state.level, own)
    tried = np.maximum(state.trials, 1) / _hanging_together(state)
    # Errors that hang together are few where they seem many: their variance is larger than what
    # was seen of it, and the level is less sure.
    learned = (
        _moderated(state, channels, tried)
        * fewer
        * (1 + 1 / tried)
        / np.maximum(1 - 1 / tried, LEAST_SEEN)
    )
    drawn = 1 / np.maximum(rows, 1.0)[..., None]
    variance = np.maximum(learned, drawn) + FLOOR**2 + doubt
    if noise is not None:  # a slice has fewer rows, and fewer windows to carry noise
        of_slices = noise * np.sqrt(rows[:1] / np.maximum(rows, 1.0))
        variance = variance + channels.blurred(of_slices) ** 2
    error = values - expected
    away = np.sign(error) * np.maximum(np.abs(error) - DEAD, 0.0)
    sure = told & (state.learned >= settings.learning_periods)[:, None]
    usable = sure[..., None] & channels.applies
    t = np.where(usable, away / np.sqrt(variance), 0.0)
    freedom = np.clip(np.minimum(tried - 1.0 + LENT_FREEDOM, _tail(state)), 1.0, MOST_FREEDOM)
    z = betting.as_normal(t, freedom)
    return _View(
        number,
        values,
        expected,
        error,
        np.sqrt(variance),
        t,
        z,
        usable,
        rows,
        fewer,
        own,
        doubt,
        told,
    )


def _hanging_together(state: DriftState) -> Float64:
    """How many periods say what one independent period would, by the errors' autocorrelation."""
    rho = state.covariance / np.maximum(state.variance, 1e-12)
    rho = np.clip(rho * state.trials / (state.trials + FEW_TRIALS), 0.0, MOST_HANGING)
    return np.asarray((1 + rho) / (1 - rho), np.float64)


def _moderated(state: DriftState, channels: Channels, tried: Float64) -> Float64:
    """Variances of few errors, pulled up to what is usual among channels, and never down.

    Source: Smyth, "Linear models and empirical Bayes methods", 2004 (moderated t statistics).
    """
    known = np.where(channels.applies, state.variance, np.nan)
    with np.errstate(all="ignore"):
        usual = np.nan_to_num(np.nanmedian(known, axis=1, keepdims=True))
    both = (tried * state.variance + LENT_FREEDOM * usual) / (tried + LENT_FREEDOM)
    return np.maximum(both, state.variance)


def _tail(state: DriftState) -> Float64:
    """Degrees of freedom of the t distribution whose kurtosis is that of the errors."""
    excess = state.fourth / np.maximum(state.variance, 1e-12) ** 2 - 3 - BY_CHANCE
    return np.asarray(4 + 6 / np.maximum(excess, 6 / MOST_FREEDOM), np.float64)


def _bet(state: DriftState, view: _View) -> None:
    """A figure of which nothing can be said keeps what it has."""
    gains = betting.log_e(view.z, _hanging_together(state), ~RISES)
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


def _learn(state: DriftState, view: _View) -> None:
    """Learn from slices that are told of; what departs far teaches no more than a bound."""
    there: Bool = np.asarray(view.told.any(axis=-1))
    before: Bool = np.logical_and(there, state.learned > 0)
    bound = np.where(before[:, None, None], 4 * view.spread + DEAD, np.inf)
    error = np.clip(view.error, -bound, bound)
    said = view.told[..., None] & np.ones(len(MEASURES), bool)
    tried = said & before[:, None, None]
    step = 1 / np.minimum(state.trials + 1, ERRORS_KEPT)
    change = step * (_by_chance(view, error) / view.fewer - state.variance)
    state.season.add(view.expected + error, there)
    state.variance = np.where(tried, state.variance + change, state.variance)
    rare = np.clip(view.error, -RARE * view.spread, RARE * view.spread)
    fourth = step * ((_by_chance(view, rare) / view.fewer) ** 2 - state.fourth)
    state.fourth = np.where(tried, state.fourth + fourth, state.fourth)
    lone = np.copysign(np.sqrt(_by_chance(view, error)), error)
    lagged = step * (lone * state.error - state.covariance)
    state.covariance = np.where(tried, state.covariance + lagged, state.covariance)
    state.error = np.where(tried, lone, state.error)
    state.trials = state.trials + tried
    state.learned = state.learned + there
    pace = 1 / np.clip(state.learned, 1, MEMORY_PERIODS)[:, None]
    state.level = np.where(said, state.level + pace[..., None] * error, state.level)
    state.rows = np.where(view.told, state.rows + pace * (view.rows - state.rows), state.rows)


def _by_chance(view: _View, error: Float64) -> Float64:
    """Squared errors, less what ignorance of the season makes of the large ones."""
    square = error**2
    return np.where(
        square <= LARGE**2 * view.own, square, square * view.own / (view.own + view.doubt)
    )


def _watch_begin(
    state: DriftState,
    channels: Channels,
    view: _View,
    seen: Mapping[str, Mapping[str, Seen]],
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
    return _finding(state, channels, view, seen, settings, opened=True)


def _watch_end(
    state: DriftState,
    channels: Channels,
    view: _View,
    seen: Mapping[str, Mapping[str, Seen]],
    settings: Settings,
) -> DriftFinding | None:
    """End a drift after a few periods in a row in which its figures were as usual."""
    places = state.memory.drifted
    if view.number - state.memory.opened <= GROWING_PERIODS and (new := _joined(state, view)):
        state.memory.drifted = [*places, *new]
        state.memory.limits += _limits(view, new)
        return _finding(state, channels, view, seen, settings, opened=True)
    usual_again = all(
        abs(float(view.t[place])) < limit
        for place, limit in zip(places, state.memory.limits, strict=True)
    )
    state.memory.quiet = state.memory.quiet + 1 if usual_again else 0
    if state.memory.quiet < CLEAR_PERIODS:
        return None
    found = _finding(state, channels, view, seen, settings, opened=False)
    state.rest()
    return found


def _joined(state: DriftState, view: _View) -> list[tuple[int, int, int]]:
    """Figures that drift as well: a drift that begins within a period touches some only then."""
    clear = _clear(state, view)
    return [place for place in _places(clear) if place not in state.memory.drifted]


def _limits(view: _View, places: Sequence[tuple[int, int, int]]) -> list[float]:
    """Within how many standard deviations figures are as usual again: half of what they were."""
    return [float(np.clip(abs(view.t[place]) / 2, LEAST_USUAL, USUAL)) for place in places]


def _clear(state: DriftState, view: _View) -> Bool:
    """Figures that depart now, or have for long."""
    now = np.where(RISES, view.t, np.abs(view.t)) >= CLEARLY
    proven = state.capital.max(axis=-1) >= PROVEN
    found: Bool = np.logical_and(np.logical_or(now, proven), state.capital.max(axis=-1) > 0)
    return found


def _places(clear: Bool) -> list[tuple[int, int, int]]:
    return [(int(s), int(c), int(m)) for s, c, m in zip(*np.nonzero(clear), strict=True)]


def _finding(
    state: DriftState,
    channels: Channels,
    view: _View,
    seen: Mapping[str, Mapping[str, Seen]],
    settings: Settings,
    *,
    opened: bool,
) -> DriftFinding:
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
    state: DriftState, channels: Channels, view: _View, place: tuple[int, int, int]
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
    view: _View,
    seen: Mapping[str, Mapping[str, Seen]],
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


def _like_another_hour(state: DriftState, view: _View) -> int | None:
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
