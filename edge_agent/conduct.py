"""How releases behaved on this device: how long answers took, and what was answered.

Kept by release, for the trial of a new one beside what the one before did lately. Exact counts that
never leave the device. Judges nothing.
"""

from collections import OrderedDict, deque

import msgspec
import numpy as np

from edge_core.stats.histogram import Histogram, Int64
from edge_core.stats.latency import BINS

MAX_RELEASES = 8
MAX_PERIODS = 60
"""Statistics windows that count as lately; an hour with the usual settings."""

_NOTHING: Int64 = np.zeros(0, np.int64)


class Conduct(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of rows that one release's model answered."""

    rows: int = 0
    latency: Int64 = np.zeros(BINS, np.int64)
    """By power of two of microseconds, as :class:`edge_core.stats.latency.LatencyHistogram`."""
    confidence: Int64 = _NOTHING
    """By bin of the release's own confidence channel; empty where nothing was answered."""
    predicted: Int64 = _NOTHING
    """By class number; empty where nothing was answered."""

    @classmethod
    def of(cls, rows: int, latency: Int64, histogram: Histogram) -> "Conduct":
        """Take what matters out of a release's statistics."""
        place = histogram.layout.slice_of
        return cls(
            rows=rows,
            latency=latency.copy(),
            confidence=histogram.counts[place("confidence")].copy(),
            # A guard below, one above and the nulls frame the classes.
            predicted=histogram.counts[place("predicted")][1:-2].copy(),
        )

    def plus(self, other: "Conduct") -> "Conduct":
        """Both together; of the same release."""
        return Conduct(
            rows=self.rows + other.rows,
            latency=self.latency + other.latency,
            confidence=_sum(self.confidence, other.confidence),
            predicted=_sum(self.predicted, other.predicted),
        )

    def since(self, earlier: "Conduct") -> "Conduct":
        """What came after an earlier state of the same counts."""
        return Conduct(
            rows=self.rows - earlier.rows,
            latency=self.latency - earlier.latency,
            confidence=_sum(self.confidence, -earlier.confidence),
            predicted=_sum(self.predicted, -earlier.predicted),
        )


class Conducts:
    """Conduct by digest of the release, of this process only. The oldest releases are let go."""

    def __init__(self) -> None:
        self._totals: OrderedDict[str, Conduct] = OrderedDict()
        self._periods: dict[str, deque[Conduct]] = {}

    def add(self, digest: str, conduct: Conduct) -> None:
        """Count one period of a release."""
        self._totals[digest] = self.total(digest).plus(conduct)
        self._totals.move_to_end(digest)
        self._periods.setdefault(digest, deque(maxlen=MAX_PERIODS)).append(conduct)
        while len(self._totals) > MAX_RELEASES:
            oldest, _ = self._totals.popitem(last=False)
            del self._periods[oldest]

    def total(self, digest: str) -> Conduct:
        """Everything since the process began."""
        return self._totals.get(digest, Conduct())

    def lately(self, digest: str) -> Conduct:
        """The latest periods in which the release answered."""
        found = Conduct()
        for period in self._periods.get(digest, ()):
            found = found.plus(period)
        return found


def _sum(one: Int64, other: Int64) -> Int64:
    if not len(one) or not len(other):
        return one if len(one) else other
    return one + other
