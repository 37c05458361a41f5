"""What a device's rows count for, so that no device decides what happens to the fleet.

Three bounds, from the mildest to the hardest:

- a device's rows weigh less the more there are of them, since they share its errors (design
  effect: Kish, "Survey Sampling", 1965);
- a device that sends far more rows than others counts as one that sends :data:`MOST_TIMES` of
  what is usual (Winsor; Tukey, "The future of data analysis", 1962);
- evidence has to stand without the device that speaks loudest for it. The smaller of an e-value
  and any other number is an e-value, so this costs no validity.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from edge_core.stats import sequential
from edge_core.stats.sequential import Counted

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

MOST_TIMES = 2.0
"""Of the median device's rows, that one device can count for."""
ENOUGH_DEVICES = 3
"""Where fewer take part, nobody can say which of them is the odd one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Weighted:
    """Weighted observations of devices: m entries of one device and one value each."""

    values: Float64
    """[v], rising; the distinct values."""
    device: Int64
    """[m]."""
    place: Int64
    """[m]: place in ``values``."""
    weight: Float64
    """[m]."""

    @cached_property
    def counted(self) -> Counted:
        """How often each value was seen."""
        counts = np.bincount(self.place, self.weight, len(self.values))
        return Counted(self.values, counts.astype(np.float64, copy=False))

    @property
    def total(self) -> float:
        """Number of observations."""
        return self.counted.total

    @property
    def mean(self) -> float | None:
        """Mean value; none where nothing was seen."""
        return self.counted.mean

    def negated(self) -> Self:
        """The same observations with the other sign."""
        return type(self)(
            values=-self.values[::-1],
            device=self.device,
            place=len(self.values) - 1 - self.place,
            weight=self.weight,
        )

    def halved(self) -> Self:
        """Values of [-1, 1] moved into [0, 1]."""
        return type(self)(
            values=(self.values + 1) / 2, device=self.device, place=self.place, weight=self.weight
        )

    def without(self, device: int) -> Self:
        """All but one device's."""
        kept = self.device != device
        return type(self)(
            values=self.values,
            device=self.device[kept],
            place=self.place[kept],
            weight=self.weight[kept],
        )

    def pulls(self, centre: float) -> Float64:
        """How far each device pulls the mean away from ``centre``, upwards."""
        found = np.bincount(self.device, self.weight * (self.values[self.place] - centre))
        return found.astype(np.float64, copy=False)


def by_device(good: Float64, bad: Float64, weights: Float64) -> Weighted:
    """Bad rows are ones, good ones zeros; three arrays [devices], weights of a row."""
    device = np.arange(len(good))
    return Weighted(
        values=np.array([0.0, 1.0]),
        device=np.concatenate([device, device]),
        place=np.repeat([0, 1], len(good)),
        weight=np.concatenate([weights * good, weights * bad]),
    )


def weights(
    rows: Float64, rows_per_observation: float, correlation: float | Float64, *, capped: bool
) -> Float64:
    """What one row of each device counts for, beside the overlap of rows.

    Args:
        rows: of each device, float64 [devices].
        rows_per_observation: how many rows overlap.
        correlation: how alike a device's observations are beyond that.
        capped: whether rows beyond :data:`MOST_TIMES` the median device's add nothing.
    """
    count = counting(rows) if capped else rows
    spread = 1 + np.maximum(0.0, count / rows_per_observation - 1) * correlation
    found: Float64 = count / np.maximum(rows, 1.0) / spread
    return found


def counting(rows: Float64) -> Float64:
    """How many of each device's rows count, float64 [devices]."""
    some = rows[rows > 0]
    if len(some) < ENOUGH_DEVICES:
        return rows
    middle = len(some) // 2
    median = float(np.partition(some, middle)[middle])
    return np.minimum(rows, MOST_TIMES * median)


def above(seen: Weighted, null: float, *, standing_alone: bool) -> float:
    """Log e-value as :func:`sequential.above`, that stands without any one device."""
    found = sequential.above(seen.counted, null)
    if not standing_alone or found <= 0:
        return found
    rest = seen.without(int(seen.pulls(null).argmax()))
    return min(found, sequential.above(rest.counted, null))


def difference_above(
    first: Weighted, second: Weighted, margin: float, *, standing_alone: bool
) -> float:
    """Log e-value as :func:`sequential.difference_above`, that stands without any one device."""
    found = sequential.difference_above(first.counted, second.counted, margin)
    if not standing_alone or found <= 0 or first.mean is None or second.mean is None:
        return found
    ours = first.pulls(first.mean) / first.total
    theirs = -second.pulls(second.mean) / second.total
    for_first, for_second = int(ours.argmax()), int(theirs.argmax())
    if ours[for_first] >= theirs[for_second]:
        first = first.without(for_first)
    else:
        second = second.without(for_second)
    return min(found, sequential.difference_above(first.counted, second.counted, margin))
