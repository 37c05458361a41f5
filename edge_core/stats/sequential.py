"""E-values by betting: evidence that stays valid however often one looks at it.

An e-value has a mean of at most 1 while the null hypothesis holds, so it exceeds 1/alpha with
probability at most alpha, at any time (Ville). Here all evidence is computed from counts, so it
does not depend on the order or grouping in which windows arrive.

Sources: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting"
(2024); Shafer, "Testing by betting" (2021); Turner, Ly and Grünwald, "Generic e-variables for
exact sequential k-sample tests" (2024), for the product of two arms' bets.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

# Fractions of the largest stake that can never lose everything. The zero bounds what a gambler
# loses where there is nothing to win.
STAKES = np.array([0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9])
SPLIT_STEP = 0.005
MARK_EVERY = 20
LARGEST = 1.0
"""Values that are compared lie in [-LARGEST, LARGEST]."""


class Counted(NamedTuple):
    """Distinct values, rising, and how often each was seen; both float64 [n].

    Counts may be fractions: rows that depend on one another weigh less than one.
    """

    values: Float64
    counts: Float64

    @property
    def total(self) -> float:
        """Number of observations."""
        return float(self.counts.sum())

    @property
    def mean(self) -> float | None:
        """Mean value; none where nothing was seen."""
        return float(self.values @ self.counts / self.total) if self.total > 0 else None

    def negated(self) -> "Counted":
        """The same observations with the other sign."""
        return Counted(-self.values[::-1], self.counts[::-1])


def counted(pairs: list[tuple[float, float]]) -> Counted:
    """Build from (value, count) pairs; equal values are added up."""
    seen = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    values, places = np.unique(seen[:, 0], return_inverse=True)
    counts = np.zeros(len(values))
    np.add.at(counts, places, np.where(seen[:, 1] > 0, seen[:, 1], 0.0))
    return Counted(values, counts)


def above(seen: Counted, null: float) -> float:
    """Log e-value against "the mean is at most ``null``", for values in [0, 1].

    The capital of a gambler who stakes on larger values, averaged over a grid of stakes.

    Raises:
        ValueError: ``null`` is not strictly between 0 and 1.
    """
    if not 0 < null < 1:
        raise ValueError(f"null {null} is not between 0 and 1")
    bets = STAKES / null
    capital = np.log1p(bets[:, None] * (seen.values - null)) @ seen.counts
    return _log_mean_exp(capital)


def difference_above(first: Counted, second: Counted, margin: float) -> float:
    """Log e-value against "mean(first) is at most mean(second) + margin".

    Values lie in [-1, 1]. Whatever the two means are, under the null some split point s has
    mean(first) <= s and mean(second) >= s - margin. Against each s two gamblers bet, one on each
    arm, so that arms of very different size both give what they have; the product of their
    capitals is evidence against s, and the smallest over all s is evidence against the null.
    Each cell of the grid of s is judged with its worse end for either gambler, so the grid
    never overstates the evidence.

    The first capital falls as s rises and the second grows. So a few marks bound all the rest:
    between two of them no sum is below the first's capital at the right and the second's at the
    left, and only where that is below the smallest sum so far, every cell is looked at.
    """
    bets = _bets(first.values.tobytes(), second.values.tobytes(), margin)
    falling = _log_mean_exps(bets.first_marks @ first.counts)
    growing = _log_mean_exps(bets.second_marks @ second.counts)
    least = float((falling + growing).min())
    open_ = np.flatnonzero(falling[1:] + growing[:-1] < least)
    if not open_.size:
        return least
    start, end = int(bets.marks[open_[0]]), int(bets.marks[open_[-1] + 1])
    larger = _log_mean_exps(bets.first[:, start:end] @ first.counts)
    smaller = _log_mean_exps(bets.second[:, start:end] @ second.counts)
    return min(least, float((larger + smaller).min()))


class _Bets(NamedTuple):
    """Log of what each stake makes of one unit of two arms' values, by cell of s.

    float64 [stakes, cells, values] each: against "the mean is at most s" for the first arm, and
    "at least s - margin" for the second.
    """

    first: Float64
    second: Float64
    marks: npt.NDArray[np.int64]
    first_marks: Float64
    second_marks: Float64


@lru_cache(maxsize=32)
def _bets(first: bytes, second: bytes, margin: float) -> _Bets:
    larger, idle_last = _log_returns(np.frombuffer(first), 0.0)
    # "At least t" for the second arm is "at most -t" for its negative.
    mirrored, idle = _log_returns(-np.frombuffer(second), margin)
    smaller = np.ascontiguousarray(mirrored[:, ::-1])
    cells = larger.shape[1]
    # No two marks enclose an end of the cells in which one of the two stakes nothing.
    ends = (idle - 1, idle, cells - idle_last - 1, cells - idle_last)
    inside = [cell for cell in ends if 0 <= cell < cells]
    marks = np.unique([*range(0, cells, MARK_EVERY), *inside, cells - 1])
    found = _Bets(larger, smaller, marks, larger[:, marks], smaller[:, marks])
    for array in found:
        array.flags.writeable = False
    return found


def _log_returns(values: Float64, shift: float) -> tuple[Float64, int]:
    """Log of what each stake makes of one unit, against "the mean is at most s + shift".

    float64 [stakes, cells of s, values], and for how many cells at the end nothing is staked; s
    is the upper end of its cell of [-1, 1], so that the reversed order of cells gives the lower
    end of the negated ones.
    """
    upper = np.arange(-LARGEST + SPLIT_STEP, LARGEST + SPLIT_STEP / 2, SPLIT_STEP) + shift
    # A null mean below all values is beaten by any value: it is judged as the lowest there is.
    room = np.maximum(upper + LARGEST, SPLIT_STEP)
    stakes = np.where(upper < LARGEST, STAKES[:, None] / room, 0.0)
    gain = values - (room - LARGEST)[:, None]
    return np.log1p(stakes[:, :, None] * gain), int((upper >= LARGEST).sum())


def tempered(log_e: float, rows_per_observation: float) -> float:
    """Discount evidence from rows that depend on one another.

    A power of at most 1 keeps an e-value an e-value (Jensen).
    """
    return log_e / max(1.0, rows_per_observation)


def average(log_es: list[float]) -> float:
    """Average e-values of the same null hypothesis, which is an e-value again; 1 for none."""
    return _log_mean_exp(np.array(log_es)) if log_es else 0.0


def _log_mean_exp(values: Float64) -> float:
    return float(_log_mean_exps(values)) if values.size else 0.0


def _log_mean_exps(values: Float64) -> Float64:
    """Over the first axis, without overflow."""
    top = values.max(axis=0)
    mean: Float64 = np.log(np.exp(values - top).sum(axis=0) / len(values)) + top
    return mean
