"""Operations over one window of sensor samples.

``x`` are a channel's valid samples in multiples of its lsb, ``n`` is their number. Sums are exact
integers; each value is rounded to float32 once, at the end.
"""

import math
from typing import Annotated

import msgspec

from edge_core.features.record import Finite, Identifier, Record

MAX_EDGES = 64


class OverSamples(Record, frozen=True, kw_only=True, tag_field="op"):
    """One model input, or several, computed from one channel's window."""

    name: Identifier
    input: Identifier
    """A channel."""
    default: Finite | None = None
    """Stands for a value that cannot be had, such as that of a window with too few samples."""


class Count(OverSamples, frozen=True, kw_only=True, tag="count"):
    """Number of valid samples."""


class Sum(OverSamples, frozen=True, kw_only=True, tag="sum"):
    """Sum of x."""


class Mean(OverSamples, frozen=True, kw_only=True, tag="mean"):
    """Sum of x over n."""


class Variance(OverSamples, frozen=True, kw_only=True, tag="variance"):
    """The population's: (n * sum of x^2 - (sum of x)^2) / n^2."""


class Std(OverSamples, frozen=True, kw_only=True, tag="std"):
    """Square root of the population's variance."""


class Min(OverSamples, frozen=True, kw_only=True, tag="min"):
    """Smallest x."""


class Max(OverSamples, frozen=True, kw_only=True, tag="max"):
    """Largest x."""


class Range(OverSamples, frozen=True, kw_only=True, tag="range"):
    """Largest x minus smallest."""


class Energy(OverSamples, frozen=True, kw_only=True, tag="energy"):
    """Mean of x^2."""


class ZeroCrossings(OverSamples, frozen=True, kw_only=True, tag="zero_crossings"):
    """Pairs of neighbours, missing samples left out, of which exactly one is below zero."""


class QuantileBins(OverSamples, frozen=True, kw_only=True, tag="quantile_bins"):
    """Share of the samples in each bin between edges; one column more than there are edges.

    A sample on an edge counts for the bin above it.
    """

    edges: Annotated[list[float], msgspec.Meta(min_length=1, max_length=MAX_EDGES)]
    """Rising, in the channel's unit."""

    def __post_init__(self) -> None:
        if any(not low < high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"feature {self.name}: edges have to rise")


class Correlation(OverSamples, frozen=True, kw_only=True, tag="correlation"):
    """Pearson's correlation with another channel over the samples that both have.

    0 where one of them is constant.
    """

    other: Identifier


class BandEnergy(OverSamples, frozen=True, kw_only=True, tag="band_energy"):
    """Mean square of the part of x between two frequencies (Parseval's theorem).

    Sum over the bins k of a discrete Fourier transform with low_hz <= k * rate / n < high_hz of
    |X_k|^2 / n^2, counted twice but for k = 0 and k = n / 2. Its cosines are multiples of 2^-14,
    so that every sum is exact. A missing sample counts as zero.
    """

    low_hz: Annotated[float, msgspec.Meta(ge=0)]
    high_hz: float

    def __post_init__(self) -> None:
        if not self.low_hz < self.high_hz:
            raise ValueError(f"feature {self.name}: low_hz has to be below high_hz")

    def bins(self, *, rate_hz: float, samples: int) -> range:
        """Numbers of the bins in the band, for windows of so many samples.

        Raises:
            ValueError: the band lies between two bins, or beyond half the rate.
        """
        first, end = (math.ceil(edge * samples / rate_hz) for edge in (self.low_hz, self.high_hz))
        found = range(first, min(end, samples // 2 + 1))
        if not found:
            raise ValueError(
                f"feature {self.name}: a window has no frequency from {self.low_hz:g} to "
                f"{self.high_hz:g} Hz; they are {rate_hz / samples:g} Hz apart, up to "
                f"{rate_hz / 2:g} Hz"
            )
        return found


class Raw(OverSamples, frozen=True, kw_only=True, tag="raw"):
    """The samples themselves, oldest first; a missing one is the default."""


SampleOperation = (
    Count
    | Sum
    | Mean
    | Variance
    | Std
    | Min
    | Max
    | Range
    | Energy
    | ZeroCrossings
    | QuantileBins
    | Correlation
    | BandEnergy
    | Raw
)


def columns(feature: OverSamples, samples: int) -> list[str]:
    """Names of a feature's columns, in order; a raw window has one for each of ``samples``."""
    match feature:
        case QuantileBins():
            return [f"{feature.name}_{place}" for place in range(len(feature.edges) + 1)]
        case Raw():
            return [f"{feature.name}_{place}" for place in range(samples)]
        case _:
            return [feature.name]
