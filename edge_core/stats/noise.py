"""Noise that hides one row among a window's counts, and adds up to nothing over many windows.

Two-sided geometric noise is the best there is for counts (Ghosh, Roughgarden and Sundararajan,
"Universally utility-maximizing privacy mechanisms", STOC 2009). Neighbouring windows differ in
everything about one row but that it was there: each channel moves as many values as a row has from
one bin to another, so its counts differ by twice that (the sensitivity). The budget is shared
evenly by all groups of counts, which composes to the whole (Dwork et al., "Calibrating noise to
sensitivity", TCC 2006).
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

BEYOND_CHANCE = 1e-12


def ratio(epsilon: float, groups: int, values: int) -> float:
    """How much less likely each next larger noise is, between 0 and 1.

    Args:
        epsilon: of one row over all groups, above 0.
        groups: groups of counts that share it.
        values: values that a row adds to this group.
    """
    return math.exp(-epsilon / groups / (2 * values))


def variance(of: float) -> float:
    """Variance of one count's noise, by its :func:`ratio`."""
    return 2 * of / (1 - of) ** 2


def draw(ratios: Float64, rng: np.random.Generator) -> Int64:
    """One noise for each ratio: the difference of two geometric numbers, int64 [n]."""
    success = -np.expm1(np.log(ratios))
    return rng.geometric(success) - rng.geometric(success)


def noisy(
    counts: Int64, sizes: Sequence[int], ratios: Sequence[float], rng: np.random.Generator
) -> Int64:
    """Counts of channels with noise on every one of them, zeros included."""
    return counts + draw(np.repeat(np.array(ratios), sizes), rng)


def bound(of: float, counts: int) -> float:
    """What the noise of so many counts together does not pass, but for one time in 10**12.

    A Bernstein bound for sums of numbers with exponential tails.
    """
    scale = 1 / -math.log(of)
    log_chance = -math.log(BEYOND_CHANCE / 2)
    return math.sqrt(2 * variance(of) * counts * log_chance) + 2 * (scale + 1) * log_chance
