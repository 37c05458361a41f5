"""What this process measures of its own work, for ``/metrics``: counts that never go back.

Names follow Prometheus' conventions: seconds, ``_total`` for counters. Labels are bounded: routes,
methods and steps that the program names, never what a caller sends.
"""

import threading
from collections.abc import Iterator, Sequence

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

REQUEST_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
BATCH_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
STEP_SECONDS = (0.01, 0.05, 0.25, 1.0, 2.0, 5.0, 15.0, 60.0)
AGE_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0, 86400.0, 604800.0)
"""The last ones are for devices that come back after a week."""

disable_created_metrics()  # type: ignore[no-untyped-call]  # or each is one series more, for nothing


class Measures:
    """Histograms and counters of one process, of a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.requests = Histogram(
            "serinus_http_request_duration_seconds",
            "From a request's head to the end of its answer; to the beginning of one that streams.",
            ["method", "route", "status"],
            buckets=REQUEST_SECONDS,
            registry=self.registry,
        )
        self.round = Histogram(
            "serinus_decision_duration_seconds",
            "One round of the process that leads: every step once.",
            buckets=STEP_SECONDS,
            registry=self.registry,
        )
        self.step = Histogram(
            "serinus_decision_step_duration_seconds",
            "One step of a round, whether it came to its end or failed.",
            ["step"],
            buckets=STEP_SECONDS,
            registry=self.registry,
        )
        self.failures = Counter(
            "serinus_decision_step_failures",
            "Steps of rounds that failed and are tried again.",
            ["step"],
            registry=self.registry,
        )
        self._batch = Histogram(
            "serinus_ingest_batch_duration_seconds",
            "From a batch of messages to its commit.",
            buckets=BATCH_SECONDS,
            registry=self.registry,
        )
        self._messages = Counter(
            "serinus_ingest_messages",
            "Messages of batches that were committed, rejected ones and repetitions among them.",
            registry=self.registry,
        )
        self._ages = ManyAtOnce(
            "serinus_ingest_lag_seconds",
            "From the end of a window, by its device's clock, to when it was stored.",
            AGE_SECONDS,
        )
        self.registry.register(self._ages)

    def took_in(self, messages: int, seconds: float, ages: Sequence[float]) -> None:
        """Note a batch that was committed, and how old its windows were, in seconds."""
        self._batch.observe(seconds)
        self._messages.inc(messages)
        self._ages.observe(ages)


class ManyAtOnce(Collector):
    """A histogram without labels that takes a batch in one call: one window costs next to nothing.

    What lies below 0, as where a device's clock is ahead, counts as 0.
    """

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._text = text
        self._bounds = np.array(bounds, "<f8")
        self._counts = np.zeros(len(bounds) + 1, "<i8")
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, values: Sequence[float]) -> None:
        """Count values; a bound itself belongs to the bucket below, as ``le`` says."""
        seen = np.maximum(np.asarray(values, "<f8"), 0.0)
        places = np.searchsorted(self._bounds, seen, side="left")
        counts = np.bincount(places, minlength=len(self._counts))
        with self._lock:
            self._counts += counts
            self._sum += float(seen.sum())

    def collect(self) -> Iterator[Metric]:
        """Its buckets now."""
        with self._lock:
            counts, total = np.cumsum(self._counts).tolist(), self._sum
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        yield HistogramMetricFamily(
            self._name, self._text, buckets=list(zip(names, counts, strict=True)), sum_value=total
        )
