"""E-values by betting: evidence that stays valid however often one looks at it.

An e-value has a mean of at most 1 while the null hypothesis holds, so it exceeds 1/alpha with
probability at most alpha, at any time (Ville). Here all evidence is computed from counts, so it
does not depend on the order or grouping in which windows arrive.

Sources: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting"
(2024); Shafer, "Testing by betting" (2021).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

# Fractions of the largest stake that can never lose everything.
STAKES = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9])
SPLIT_STEP = 0.001
LARGEST_RESIDUAL = 1.0


class Counted(NamedTuple):
    """Distinct values and how often each was seen, both float64 [n]."""

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


def counted(pairs: list[tuple[float, int]]) -> Counted:
    """Build from (value, count) pairs."""
    values, counts = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
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
    mean(first) <= s and mean(second) >= s - margin; against each s two gamblers bet at once,
    and the evidence is the smallest over all s. Each cell of the grid of s is judged with its
    worse end for either gambler, so the grid never overstates the evidence.
    """
    low = np.arange(-LARGEST_RESIDUAL, LARGEST_RESIDUAL, SPLIT_STEP)
    high = low + SPLIT_STEP
    bets = STAKES / (2 * LARGEST_RESIDUAL + abs(margin) + SPLIT_STEP)
    capital = np.stack(
        [_log_capital(first, bet, -high) + _log_capital(second, -bet, margin - low) for bet in bets]
    )
    return float(_log_mean_exps(capital).min())


def _log_capital(seen: Counted, bet: float, shift: Float64) -> Float64:
    """Log of the product of (1 + bet * (value + shift)) over everything seen, per shift."""
    capital: Float64 = np.log1p(bet * (seen.values[:, None] + shift)).T @ seen.counts
    return capital


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
    mean: Float64 = np.log(np.exp(values - top).mean(axis=0)) + top
    return mean
