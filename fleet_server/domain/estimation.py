"""How well a release probably does where no label has come yet: an estimate, never evidence.

The share of right answers is taken from labelled rows by bin of the answer's confidence, and
weighed with how often each bin was seen lately (confidence-based performance estimation). It holds
as long as confidence means what it meant: a change of what inputs mean (concept drift) moves the
truth and leaves the estimate where it is, so no verdict is drawn from it.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

PRIOR_ROWS = 2.0
"""Weight of the overall rate in each bin's own."""
MIN_LABELLED = 100
"""Labelled rows below which nothing is estimated."""
Z95 = 1.959964


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """Expected accuracy over rows without labels."""

    accuracy: float
    low: float
    high: float
    """95 % interval for what the labelled rows leave open; it knows of no concept drift."""
    rows: int
    """Rows that it is about."""
    labelled: int
    """Rows that confidence was calibrated on."""


def estimate(
    seen: Sequence[int], right: Sequence[int], wrong: Sequence[int], rows_per_observation: float
) -> Estimate | None:
    """Estimate accuracy over rows of which only the confidence is known.

    Args:
        seen: rows by bin of confidence, [bins].
        right: labelled rows by bin that were right, [bins].
        wrong: those that were wrong, [bins].
        rows_per_observation: how many rows of one device say what one would.

    Returns:
        None where too few rows are labelled, or none is to be estimated.
    """
    counts, good, bad = (
        np.maximum(np.array(each, dtype=float), 0) for each in (seen, right, wrong)
    )
    labelled, total = float(good.sum() + bad.sum()), float(counts.sum())
    if labelled < MIN_LABELLED or total <= 0:
        return None
    prior = good.sum() / labelled
    known = good + bad + PRIOR_ROWS
    rates = (good + PRIOR_ROWS * prior) / known
    shares = counts / total
    value = float(shares @ rates)
    variance = float(
        shares**2 @ (rates * (1 - rates) * rows_per_observation / np.maximum(good + bad, 1.0))
    )
    half = Z95 * variance**0.5
    return Estimate(
        accuracy=value,
        low=max(0.0, value - half),
        high=min(1.0, value + half),
        rows=round(total),
        labelled=round(labelled),
    )
