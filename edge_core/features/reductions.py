"""Exact integer reductions of windows, and the features that are made of them.

Sums are int64, which no order of addition can change. What follows them in floating point is a
fixed sequence of additions, multiplications, divisions and square roots, each of which IEEE 754
rounds correctly: so no processor, batch or library gives other bits.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_core.features.over_samples import (
    Count,
    Energy,
    Max,
    Mean,
    Min,
    OverSamples,
    Range,
    Std,
    Sum,
    Variance,
    ZeroCrossings,
)

Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

MISSING = np.int32(-(2**31))
"""Stands for a missing sample; ranges have less than 25 bits, so that no value is equal to it."""
COSINE_BITS = 14
"""Cosines are multiples of 2^-14: 24 bits of sample, 14 of cosine and 12 of length fit float64."""

LINEAR: tuple[type[OverSamples], ...] = (Sum, Mean, Std, Min, Max, Range)
"""Operations whose values are in the channel's unit."""
SQUARE: tuple[type[OverSamples], ...] = (Variance, Energy)
"""Operations whose values are in its square."""


class Reductions:
    """Reductions of int32 [batch, inputs, samples], each made once when needed."""

    def __init__(self, series: Int32, *, may_miss: bool) -> None:
        """Take windows in multiples of lsb; ``may_miss``: whether to look for missing samples."""
        valid = series != MISSING if may_miss else None
        if valid is not None and valid.all():
            valid = None
        self.valid: Bool | None = valid
        """Which samples are there, bool [batch, inputs, samples]; none where all are."""
        self.series = series if valid is None else np.where(valid, series, np.int32(0))
        """Missing ones are 0."""

    @functools.cached_property
    def wide(self) -> Int64:
        """The samples as int64."""
        return self.series.astype(np.int64)

    @functools.cached_property
    def count(self) -> Int64:
        """Number of valid samples, int64 [batch, inputs]."""
        if self.valid is None:
            return np.full(self.series.shape[:2], self.series.shape[2], np.int64)
        return _counted(self.valid)

    @functools.cached_property
    def divisor(self) -> Int64:
        """The number, or 1 where there is none."""
        return np.maximum(self.count, 1)

    @functools.cached_property
    def sum(self) -> Int64:
        """Sum of x, int64 [batch, inputs]."""
        total: Int64 = np.einsum("bin->bi", self.wide)
        return total

    @functools.cached_property
    def squares(self) -> Int64:
        """Sum of x^2, int64 [batch, inputs]."""
        squares: Int64 = np.einsum("bin,bin->bi", self.wide, self.wide)
        return squares

    @functools.cached_property
    def spread(self) -> Int64:
        """The variance times the square of the number, exactly."""
        return self.count * self.squares - self.sum**2

    @functools.cached_property
    def smallest(self) -> Int32:
        """Least x, int32 [batch, inputs]."""
        found: Int32 = self._filled(np.iinfo(np.int32).max).min(axis=2)
        return found

    @functools.cached_property
    def largest(self) -> Int32:
        """Greatest x, int32 [batch, inputs]."""
        found: Int32 = self._filled(np.iinfo(np.int32).min).max(axis=2)
        return found

    @functools.cached_property
    def zero_crossings(self) -> Int64:
        """Valid samples of another sign than the valid one before them."""
        negative = self.series < 0
        differs: Bool
        if self.valid is None:
            differs = negative[:, :, 1:] != negative[:, :, :-1]
            return _counted(differs)
        places = np.where(self.valid, np.arange(self.series.shape[2]), -1)
        before = np.maximum.accumulate(places, axis=2)[:, :, :-1]
        earlier = np.take_along_axis(negative, np.maximum(before, 0), axis=2)
        differs = (negative[:, :, 1:] != earlier) & self.valid[:, :, 1:] & (before >= 0)
        return _counted(differs)

    def values(self, kind: type[OverSamples]) -> Float64:
        """An operation on every channel, float64 [batch, inputs], in multiples of lsb."""
        values: Float64
        if kind is Count:
            values = self.count.astype(np.float64)
        elif kind is Sum:
            values = self.sum.astype(np.float64)
        elif kind is Mean:
            values = self.sum / self.divisor
        elif kind is Variance:
            values = self.spread / self.divisor**2
        elif kind is Std:
            values = np.sqrt(self.spread.astype(np.float64)) / self.divisor
        elif kind is Energy:
            values = self.squares / self.divisor
        elif kind is Min:
            values = self.smallest.astype(np.float64)
        elif kind is Max:
            values = self.largest.astype(np.float64)
        elif kind is Range:
            values = self.largest.astype(np.float64) - self.smallest
        elif kind is ZeroCrossings:
            values = self.zero_crossings.astype(np.float64)
        else:
            raise TypeError(f"{kind.__name__} is no operation on one channel's sums")
        return values

    def shares(self, channel: int, thresholds: Sequence[int]) -> Float64:
        """Share of the samples in each bin between thresholds, float64 [batch, bins]."""
        samples = self._filled(np.iinfo(np.int32).min)[:, channel]
        above = [(samples >= edge).sum(axis=1) for edge in thresholds]
        total = self.count[:, channel]
        bounds = np.stack([total, *above, np.zeros_like(total)], axis=1)
        shares: Float64 = (bounds[:, :-1] - bounds[:, 1:]) / self.divisor[:, channel, None]
        return shares

    def correlation(self, one: int, other: int) -> tuple[Float64, Int64]:
        """Correlation of two channels and the number of samples that both have, [batch] each."""
        x, y = self.wide[:, one], self.wide[:, other]
        if self.valid is None:
            count = self.count[:, one]
        else:
            both = self.valid[:, one] & self.valid[:, other]
            x, y, count = x * both, y * both, both.sum(axis=1, dtype=np.int64)
        sum_x, sum_y = x.sum(axis=1), y.sum(axis=1)
        spread_x = count * np.einsum("bn,bn->b", x, x) - sum_x**2
        spread_y = count * np.einsum("bn,bn->b", y, y) - sum_y**2
        together = count * np.einsum("bn,bn->b", x, y) - sum_x * sum_y
        scale = np.sqrt(spread_x.astype(np.float64)) * np.sqrt(spread_y.astype(np.float64))
        found = together / np.where(scale > 0, scale, 1.0)
        return np.clip(found, -1.0, 1.0), count

    def band_energy(self, channel: int, bins: range) -> Float64:
        """Mean square of the part of x in some bins of the Fourier transform, float64 [batch]."""
        samples = self.series.shape[2]
        waves = cosines(samples, bins)
        # Every partial sum is a whole number below 2^53: whatever order BLAS takes, it is exact.
        parts = self.series[:, channel].astype(np.float64) @ waves
        powers = parts[:, : len(bins)] ** 2 + parts[:, len(bins) :] ** 2
        powers *= [1.0 if k in (0, samples / 2) else 2.0 for k in bins]
        # accumulate adds from left to right; sum() may group as it likes.
        total = np.add.accumulate(powers, axis=1)[:, -1]
        energy: Float64 = total / float(samples**2) / float(4**COSINE_BITS)
        return energy

    def _filled(self, value: int) -> Int32:
        if self.valid is None:
            return self.series
        return np.where(self.valid, self.series, np.int32(value))


def _counted(marks: Bool) -> Int64:
    """Marks along the last axis."""
    # Exact below 2^24, and several times quicker than a sum of booleans.
    ones = np.ones(marks.shape[2], np.float32)
    count: Int64 = (marks.astype(np.float32) @ ones).astype(np.int64)
    return count


@functools.lru_cache(maxsize=64)
def cosines(samples: int, bins: range) -> Float64:
    """Cosines of each bin, then sines, in multiples of 2^-14: float64 [samples, 2 * bins].

    None of them lies near the middle of two multiples for any window length, so that rounding
    hides in what last bit mathematics libraries differ.
    """
    phases = np.outer(np.arange(samples), np.array(bins)) % samples
    circle = [2.0 * math.pi * phase / samples for phase in range(samples)]
    table = np.array([[math.cos(angle), math.sin(angle)] for angle in circle]) * 2**COSINE_BITS
    rounded = np.rint(table)
    return np.concatenate([rounded[phases, 0], rounded[phases, 1]], axis=1)
