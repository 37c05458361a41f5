"""One period beside what was expected of it, and how rare each departure is."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from fleet_server.domain.drifting import betting
from fleet_server.domain.drifting.measures import DEAD, FLOOR, Channels
from fleet_server.domain.drifting.state import DriftState

LEAST_SEEN = 0.1
"""Part of the variance that is seen of errors that hang together, at least."""
BY_CHANCE = 1.0
"""Kurtosis that a sample of normal errors may well have too much."""
MOST_HANGING = 0.98
LENT_FREEDOM = 6.0
"""Degrees of freedom that the other channels lend to each."""
FEW_TRIALS = 10
"""So many errors say half of how they hang together."""
MOST_FREEDOM = 100

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


class View(NamedTuple):
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


def view_of(
    state: DriftState,
    channels: Channels,
    seen: Period,
    number: int,
    settings: Settings,
    noise: Float64 | None,
) -> View:
    """Measure one period, and compare it with what was expected; arguments as in ``observe``."""
    counts = _stacked(state, channels, seen)
    rows = channels.rows(counts)
    told = rows >= settings.min_rows
    values = channels.measure(counts)
    fewer = np.maximum(1.0, state.rows / np.maximum(rows, 1.0))[..., None]
    own = state.variance + FLOOR**2
    doubt = state.season.doubt() ** 2
    expected = state.season.expected(state.season.hour, state.level, own)
    tried = np.maximum(state.trials, 1) / hanging_together(state)
    # Errors that hang together are few where they seem many: their variance is larger than what
    # was seen of it, and the level is less sure.
    unseen = (1 + 1 / tried) / np.maximum(1 - 1 / tried, LEAST_SEEN)
    learned = _moderated(state, channels, tried) * fewer * unseen
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
    return View(
        number=number,
        values=values,
        expected=expected,
        error=error,
        spread=np.sqrt(variance),
        t=t,
        z=betting.as_normal(t, freedom),
        usable=usable,
        rows=rows,
        fewer=fewer,
        own=own,
        doubt=doubt,
        told=told,
    )


def _stacked(state: DriftState, channels: Channels, seen: Period) -> Float64:
    """Counts of all arms: [slices, total]."""
    counts = np.zeros((len(state.memory.slices), channels.total))
    for at, name in enumerate(state.memory.slices):
        for arm in seen.get(name, {}).values():
            counts[at] += arm.counts
    return np.maximum(counts, 0.0)  # noise for privacy may leave less than nothing


def hanging_together(state: DriftState) -> Float64:
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
