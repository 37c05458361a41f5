"""What this process did since it started, for ``/metrics``: counts that never go back.

Statistics for the fleet are another thing: they close with each window, per slice and arm.
"""

import threading
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_core.messages.telemetry import OTHER_CONSUMERS
from edge_core.release import ReleaseRef
from edge_core.stats.latency import LatencyHistogram

FOLD_BATCHES = 64
"""Latencies are counted that many batches at a time: one batch would cost as much."""
MAX_KEYS = 256
"""Different releases, causes or consumers that are told apart; the rest is counted together."""
OTHERS = OTHER_CONSUMERS  # no client can call itself so


class Served(NamedTuple):
    """By whom rows were answered."""

    model: str
    version: str
    served_by: str


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
    """The inference thread and the event loop count, the event loop reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[Served, int] = {}
        self._latency: dict[Served, Latencies] = {}
        self._errors: dict[tuple[str, str], int] = {}
        self._late: dict[tuple[str, str], int] = {}
        self._refused: dict[tuple[str, str], int] = {}
        self._consumed: dict[tuple[str, str], int] = {}

    def answered(
        self, served: Served, latency_us: npt.NDArray[np.float64], *, cached: int = 0
    ) -> None:
        """Count a batch of answers with the latency of each row, and how many were cached."""
        with self._lock:
            served = served if served in self._rows or len(self._rows) < MAX_KEYS else _OTHERS
            self._rows[served] = self._rows.get(served, 0) + len(latency_us) - cached
            if cached:
                from_cache = served._replace(served_by="cache")
                self._rows[from_cache] = self._rows.get(from_cache, 0) + cached
            latency = self._latency.get(served)
            if latency is None:
                latency = self._latency[served] = Latencies()
            latency.add(latency_us)

    def failed(self, release: ReleaseRef, rows: int) -> None:
        """Count rows that the model could not answer."""
        self._add(self._errors, (release.model, release.version), rows)

    def late(self, release: ReleaseRef, events: int) -> None:
        """Count samples and events that came too late, twice or too early to be taken."""
        self._add(self._late, (release.model, release.version), events)

    def refused(self, interface: str, kind: str) -> None:
        """Count a request that was refused, by the name of its error."""
        self._add(self._refused, (interface, kind), 1)

    def consumed(self, consumer: str, model: str, rows: int) -> None:
        """Count rows that a consumer was answered."""
        self._add(self._consumed, (consumer, model), rows)

    @property
    def rows(self) -> dict[Served, int]:
        """Rows by whom they were answered."""
        with self._lock:
            return dict(self._rows)

    @property
    def latency(self) -> dict[Served, tuple[list[int], float]]:
        """Counts of each latency bin, and the sum in microseconds."""
        with self._lock:
            for latency in self._latency.values():
                latency.fold()
            return {
                served: (latency.histogram.counts.tolist(), latency.sum_us)
                for served, latency in self._latency.items()
            }

    @property
    def errors(self) -> dict[tuple[str, str], int]:
        """Rows that the model could not answer, by model and version."""
        return self._copy(self._errors)

    @property
    def late_events(self) -> dict[tuple[str, str], int]:
        """Samples and events that were not taken, by model and version."""
        return self._copy(self._late)

    @property
    def refusals(self) -> dict[tuple[str, str], int]:
        """Refused requests by interface and kind of error."""
        return self._copy(self._refused)

    @property
    def refused_requests(self) -> int:
        """All refused requests."""
        with self._lock:
            return sum(self._refused.values())

    @property
    def consumers(self) -> dict[tuple[str, str], int]:
        """Rows by consumer and model."""
        return self._copy(self._consumed)

    def _add(self, counts: dict[tuple[str, str], int], key: tuple[str, str], count: int) -> None:
        with self._lock:
            if key not in counts and len(counts) >= MAX_KEYS:
                key = (OTHERS, OTHERS)  # names may come from outside: what is kept is bounded
            counts[key] = counts.get(key, 0) + count

    def _copy(self, counts: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
        with self._lock:
            return dict(counts)


_OTHERS = Served(OTHERS, OTHERS, OTHERS)
