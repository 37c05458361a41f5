"""``/metrics``: what the agent did and does, in the text format of Prometheus.

Names follow Prometheus' conventions: base units, ``_total`` for counters. Nothing is counted here;
other parts count, and are asked when somebody looks.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from edge_agent.serving.engine import Engine
from edge_agent.update.transitions import STATES

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
StatusSource = Callable[[], Mapping[str, str | int | float | bool | None]]

_Key = TypeVar("_Key", bound=tuple[str, ...])
_RELEASE = ["model", "version"]
_SERVED = [*_RELEASE, "served_by"]
_GAUGES = {
    "connected": ("serinus_connected", "Whether the fleet's broker is connected."),
    "unsent_bytes": ("serinus_outbox_bytes", "Bytes that wait for the broker."),
}
_COUNTERS = {
    "dropped_messages": (
        "serinus_outbox_dropped_messages",
        "Messages dropped because the outbox was full.",
    ),
    "samples_too_big": (
        "serinus_oversized_samples",
        "Samples not sent because no message holds them.",
    ),
    "memory_refused": (
        "serinus_feature_memories_refused",
        "Stored memories of features that could not be used.",
    ),
    "clock_held": (
        "serinus_clock_held",
        "Moments at which the clock was behind what was seen already.",
    ),
}


class Metrics:
    """The agent's metrics, in a registry of their own."""

    def __init__(self, engine: Engine, version: str, status: StatusSource) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Ours(engine, version, status))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """All of them now."""
        return generate_latest(self._registry)


class _Ours(Collector):
    """Reads the engine's tally and the agent's status."""

    def __init__(self, engine: Engine, version: str, status: StatusSource) -> None:
        self._engine = engine
        self._version = version
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Every metric with its values."""
        yield from self._served()
        yield from self._requests()
        yield from self._queue()
        yield from self._release()
        yield from self._agent()

    def _served(self) -> Iterator[Metric]:
        tally = self._engine.tally
        rows = CounterMetricFamily(
            "serinus_predictions", "Rows that were answered.", labels=_SERVED
        )
        fallbacks = CounterMetricFamily(
            "serinus_fallbacks", "Rows that the baseline answered.", labels=_RELEASE
        )
        for served, count in tally.rows.items():
            rows.add_metric(served, count)
            if served[2] == "fallback":
                fallbacks.add_metric(served[:2], count)
        yield rows
        yield fallbacks
        yield _counter(
            "serinus_model_errors", "Rows that the model could not answer.", _RELEASE, tally.errors
        )
        yield _counter(
            "serinus_late_events",
            "Samples and events that came too late, twice or too early to be taken.",
            _RELEASE,
            tally.late_events,
        )
        latency = HistogramMetricFamily(
            "serinus_prediction_latency_seconds",
            "Time from a row's arrival to its answer.",
            labels=_RELEASE,
        )
        for served, (counts, sum_us) in tally.latency.items():
            latency.add_metric(served, _buckets(counts), sum_us / 1e6)
        yield latency

    def _requests(self) -> Iterator[Metric]:
        tally = self._engine.tally
        yield _counter(
            "serinus_requests_refused",
            "Requests that were refused, by the kind of error.",
            ["interface", "kind"],
            self._engine.refusals.by_interface,
        )
        yield _counter(
            "serinus_consumer_predictions",
            "Rows that were answered, by who asked.",
            ["consumer", "model"],
            tally.consumers,
        )

    def _queue(self) -> Iterator[Metric]:
        engine = self._engine
        yield _gauge("serinus_queue_rows", "Rows that wait for an answer.", engine.waiting_rows)
        yield _gauge("serinus_queue_limit_rows", "Rows that may wait.", engine.max_queue_rows)

    def _release(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "serinus_release_info",
            "Releases that serve, and shadows behind them.",
            labels=["role", *_RELEASE, "target", "runtime"],
        )
        for lane in self._engine.lanes:
            for role, release in (("active", lane.active), ("shadow", lane.shadow)):
                if release is not None:
                    ref, runtime = release.ref, release.session.runtime
                    info.add_metric([role, ref.model, ref.version, release.target, runtime], 1)
        yield info
        agent = GaugeMetricFamily("serinus_agent_info", "This agent.", labels=["version"])
        agent.add_metric([self._version], 1)
        yield agent

    def _agent(self) -> Iterator[Metric]:
        status = self._status()
        for key, (name, text) in _GAUGES.items():
            if (value := _number(status.get(key))) is not None:
                yield _gauge(name, text, value)
        for key, (name, text) in _COUNTERS.items():
            if (value := _number(status.get(key))) is not None:
                yield CounterMetricFamily(name, text, value)
        if (stored := status.get("memory_stored")) is not None:
            text = "Whether all that features remember stands on the disk."
            yield _gauge("serinus_feature_memory_stored", text, float(bool(stored)))
        if (state := status.get("update")) is not None:
            update = GaugeMetricFamily(
                "serinus_update_state", "1 for the state of the update.", labels=["state"]
            )
            for known in STATES:
                update.add_metric([known], float(known == state))
            yield update


def _number(value: str | float | None) -> float | None:
    return None if value is None or isinstance(value, str) else float(value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _counter(name: str, text: str, labels: list[str], counts: Mapping[_Key, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, count in counts.items():
        family.add_metric(key, count)
    return family


def _buckets(counts: list[int]) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound in seconds; the last bin also holds everything slower."""
    found: list[tuple[str, float]] = []
    total = 0
    for place, count in enumerate(counts):
        total += count
        last = place == len(counts) - 1
        found.append(("+Inf" if last else str(2 ** (place + 1) / 1e6), total))
    return found
