"""What this process did since it started, for ``/metrics``: counts that never go back.

Statistics for the fleet are another thing: they close with each window, per slice and arm.
"""

import threading

import numpy as np
import numpy.typing as npt

from edge_agent.monitor import Batch, Role
from edge_core.release import ReleaseRef
from edge_core.stats.latency import LatencyHistogram

FOLD_BATCHES = 64
"""Latencies are counted that many batches at a time: one batch would cost as much."""
MAX_KEYS = 256
"""Different releases, causes or consumers that are told apart; the rest is counted together."""
OTHERS = "others"


class Latencies:
    """Latency of rows, and their sum."""

    def __init__(self) -> None:
        self.histogram = LatencyHistogram()
        self.sum_us = 0.0
        self._waiting: list[npt.NDArray[np.float64]] = []

    def add(self, latency_us: npt.NDArray[np.float64]) -> None:
        """Count a batch's rows, float64 [n] microseconds."""
        self._waiting.append(latency_us)
        if len(self._waiting) >= FOLD_BATCHES:
            self.fold()

    def fold(self) -> None:
        """Count what waits."""
        if self._waiting:
            joined = np.concatenate(self._waiting)
            self._waiting = []
            self.histogram.update(joined)
            self.sum_us += float(joined.sum())


class Tally:
    """The inference thread counts, any thread reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, ...], int] = {}
        self._latency: dict[tuple[str, ...], Latencies] = {}
        self._errors: dict[tuple[str, ...], int] = {}
        self._late: dict[tuple[str, ...], int] = {}
        self._consumed: dict[tuple[str, ...], int] = {}

    def answered(self, role: Role, batch: Batch) -> None:
        """Count a batch of answers with the latency of each row, and who asked."""
        release, rows = (role.release.model, role.release.version), len(batch.ids)
        with self._lock:
            if role.arm == "fallback":
                _add(self._rows, (*release, "fallback"), rows)
            else:
                _add(self._rows, (*release, "model"), rows - batch.cached)
            if batch.cached:
                _add(self._rows, (*release, "cache"), batch.cached)
            for consumer, count in batch.consumers.items():
                _add(self._consumed, (consumer, role.release.model), count)
            if release not in self._latency and len(self._latency) >= MAX_KEYS:
                release = (OTHERS, OTHERS)
            self._latency.setdefault(release, Latencies()).add(batch.latency_us)

    def failed(self, release: ReleaseRef, rows: int) -> None:
        """Count rows that the model could not answer."""
        with self._lock:
            _add(self._errors, (release.model, release.version), rows)

    def late(self, release: ReleaseRef, events: int) -> None:
        """Count samples and events that came too late, twice or too early to be taken."""
        with self._lock:
            _add(self._late, (release.model, release.version), events)

    @property
    def rows(self) -> dict[tuple[str, ...], int]:
        """Rows by model, version and what answered them: ``model``, ``fallback`` or ``cache``."""
        return self._copy(self._rows)

    @property
    def latency(self) -> dict[tuple[str, ...], tuple[list[int], float]]:
        """By model and version the counts of each latency bin, and the sum in microseconds."""
        with self._lock:
            for latency in self._latency.values():
                latency.fold()
            return {
                release: (latency.histogram.counts.tolist(), latency.sum_us)
                for release, latency in self._latency.items()
            }

    @property
    def errors(self) -> dict[tuple[str, ...], int]:
        """Rows that the model could not answer, by model and version."""
        return self._copy(self._errors)

    @property
    def late_events(self) -> dict[tuple[str, ...], int]:
        """Samples and events that were not taken, by model and version."""
        return self._copy(self._late)

    @property
    def consumers(self) -> dict[tuple[str, ...], int]:
        """Rows by consumer and model."""
        return self._copy(self._consumed)

    def _copy(self, counts: dict[tuple[str, ...], int]) -> dict[tuple[str, ...], int]:
        with self._lock:
            return dict(counts)


def _add(counts: dict[tuple[str, ...], int], key: tuple[str, ...], count: int) -> None:
    """Count; names may come from outside, so what is kept is bounded."""
    if key not in counts and len(counts) >= MAX_KEYS:
        key = (OTHERS,) * len(key)
    counts[key] = counts.get(key, 0) + count
