"""How far two sets of counts are from one another. Judges nothing."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


def total_variation(sizes: Sequence[int], first: Int64, second: Int64) -> Float64:
    """Share of the rows that would have to change bins, for each channel.

    Args:
        sizes: number of counts of each channel.
        first: flat counts int64 [sum of sizes].
        second: the same.

    Returns:
        float64 [channels], 0 to 1; 0 where one of the two saw nothing.
    """
    starts = np.cumsum([0, *sizes])[:-1]
    totals = np.add.reduceat(first, starts), np.add.reduceat(second, starts)
    shares = first / np.repeat(np.maximum(totals[0], 1), sizes)
    shares = shares - second / np.repeat(np.maximum(totals[1], 1), sizes)
    halves: Float64 = np.add.reduceat(np.abs(shares), starts) / 2
    return np.where((totals[0] > 0) & (totals[1] > 0), halves, 0.0)
