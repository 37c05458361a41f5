"""Latency in powers of two of microseconds: small, mergeable, and exact enough to compare."""

from typing import Self

import numpy as np
import numpy.typing as npt

from edge_core.stats.histogram import Int64, pack_counts, unpack_counts

BINS = 24
"""Bin i holds latencies below 2**(i + 1) us; the last bin also holds everything slower."""


class LatencyHistogram:
    """Counts by power of two of microseconds."""

    def __init__(self, counts: Int64 | None = None) -> None:
        self.counts: Int64 = np.zeros(BINS, np.int64) if counts is None else counts

    def update(self, microseconds: npt.ArrayLike) -> None:
        """Count latencies, float or int [n] in microseconds; ``ValueError`` for NaN."""
        bounded = np.clip(np.asarray(microseconds, dtype=np.float64), 1.0, 2.0 ** (BINS - 1))
        if np.isnan(bounded).any():
            raise ValueError("a latency is not a number")
        # The exponent is exact at every power of two; a logarithm may round across one.
        _, exponents = np.frexp(bounded)
        self.counts += np.bincount(exponents.reshape(-1) - 1, minlength=BINS)

    def merge(self, other: Self) -> None:
        """Add the counts of another histogram."""
        self.counts += other.counts

    def quantile(self, share: float) -> float | None:
        """Upper bound in microseconds of the bin that holds the quantile; none when empty."""
        total = int(self.counts.sum())
        if total == 0:
            return None
        # At least one count, so that the share 0 names the first bin that holds anything.
        reached = np.searchsorted(np.cumsum(self.counts), max(share * total, 1))
        return float(2 ** (min(int(reached), BINS - 1) + 1))

    def to_bytes(self) -> bytes:
        """Little-endian int64 counts."""
        return pack_counts(self.counts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Unpack; raise ``InvalidMessage`` where the length does not fit."""
        return cls(unpack_counts(data, BINS))
