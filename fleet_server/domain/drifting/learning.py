"""What a detector learns from a period that was usual."""

import numpy as np
import numpy.typing as npt

from fleet_server.domain.drifting.expectation import View
from fleet_server.domain.drifting.measures import DEAD, MEASURES
from fleet_server.domain.drifting.state import DriftState

MEMORY_PERIODS = 672
ERRORS_KEPT = 168
LARGE = 3.0
"""Standard deviations beyond which an error in an hour that was never seen tells of the season."""
MOST_TAUGHT = 4.0
"""Standard deviations of an error that still teaches as much as it is."""
RARE = 12.0
"""Standard deviations up to which a rare error tells how heavy the tails are."""

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


def learn(state: DriftState, view: View) -> None:
    """Learn from slices that are told of; what departs far teaches no more than a bound."""
    there: Bool = np.asarray(view.told.any(axis=-1))
    before: Bool = np.logical_and(there, state.learned > 0)
    bound = np.where(before[:, None, None], MOST_TAUGHT * view.spread + DEAD, np.inf)
    error = np.clip(view.error, -bound, bound)
    said = view.told[..., None] & np.ones(len(MEASURES), bool)
    state.season.add(view.expected + error, there)
    _learn_errors(state, view, error, said & before[:, None, None])
    state.learned = state.learned + there
    pace = 1 / np.clip(state.learned, 1, MEMORY_PERIODS)[:, None]
    state.level = np.where(said, state.level + pace[..., None] * error, state.level)
    state.rows = np.where(view.told, state.rows + pace * (view.rows - state.rows), state.rows)


def _learn_errors(state: DriftState, view: View, error: Float64, tried: Bool) -> None:
    """How large errors are, how rare the large ones, and how they hang together."""
    step = 1 / np.minimum(state.trials + 1, ERRORS_KEPT)
    square = _by_chance(view, error)
    rare = _by_chance(view, np.clip(view.error, -RARE * view.spread, RARE * view.spread))
    lone = np.copysign(np.sqrt(square), error)
    for name, news in (
        ("variance", square / view.fewer),
        ("fourth", (rare / view.fewer) ** 2),
        ("covariance", lone * state.error),
    ):
        before = getattr(state, name)
        setattr(state, name, np.where(tried, before + step * (news - before), before))
    state.error = np.where(tried, lone, state.error)
    state.trials = state.trials + tried


def _by_chance(view: View, error: Float64) -> Float64:
    """Squared errors, less what ignorance of the season makes of the large ones."""
    square = error**2
    return np.where(
        square <= LARGE**2 * view.own, square, square * view.own / (view.own + view.doubt)
    )
