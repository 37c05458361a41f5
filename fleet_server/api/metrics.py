"""``/metrics``, ``/healthz`` and ``/readyz``: for machines that watch this one.

Names follow Prometheus' conventions: base units, ``_total`` for counters. Labels are bounded: by
models, releases, states, kinds and reasons, never by devices.
"""

import contextlib
from collections.abc import Iterator, Mapping

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge_core.errors import Unavailable
from fleet_server.api.access import ServicesOf
from fleet_server.api.schemas import Answer
from fleet_server.services.figures import Figures
from fleet_server.services.health import Report
from fleet_server.services.suite import Services

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LARGEST = 1e9
"""An e-value that is larger is as good as this one."""

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
def healthz(services: ServicesOf) -> Response:
    """Whether the process does its work."""
    return _answer(services.health.live())


@router.get("/readyz")
def readyz(services: ServicesOf) -> Response:
    """Whether it can serve now."""
    return _answer(services.health.ready())


@router.get("/metrics")
def metrics(services: ServicesOf) -> Response:
    """Everything that a dashboard shows."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(services.measures.registry)
    registry.register(_Ours(services))
    ProcessCollector(registry=registry)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE)


def _answer(report: Report) -> Response:
    return Answer(report, status_code=200 if report.ok else 503)


class _Ours(Collector):
    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        """Every metric now."""
        report = self._services.health.lately()
        yield _gauge("ready", "Whether the server can serve, as /readyz says.", [], {(): report.ok})
        well: dict[tuple[str, ...], float] = {
            (name,): said == "ok" for name, said in report.checks.items()
        }
        yield _gauge("check_ok", "Whether a check of /readyz finds nothing.", ["check"], well)
        with contextlib.suppress(Unavailable):  # what it knows of itself, it tells then, too
            found = self._services.figures.now()
            yield from _fleet(found)
            yield from _rollouts(found)
            yield from _messages(found)
        left: dict[tuple[str, ...], float] = {
            (role,): value
            for role, value in self._services.repository_expiry.seconds_left().items()
        }
        if left:
            yield _gauge(
                "repository_expires_seconds", "Until what people sign ends; negative after that.",
                ["role"], left,
            )  # fmt: skip
        for name, value in self._services.gauges().items():
            gauge = GaugeMetricFamily(f"serinus_{name}", _GAUGES[name])
            gauge.add_metric([], value)
            yield gauge


_GAUGES = {
    "leading": "Whether this process believes that it decides for the fleet.",
    "certificate_seconds_left": "How long the server's certificate is valid still.",
    "broker_connected": "Whether the MQTT broker is connected.",
    "ingest_waiting_messages": "Messages received and not yet stored.",
}


def _fleet(found: Figures) -> Iterator[Metric]:
    yield _gauge(
        "devices", "Devices by release, state of their update and presence.",
        ["release", "state", "online"],
        {
            (_name(found, digest), state, str(online == "True").lower()): count
            for (digest, state, online), count in found.devices.items()
        },
    )  # fmt: skip
    since: dict[tuple[str, ...], float] = {
        (model, _name(found, digest)): since / 1000
        for model, (digest, since) in found.production.items()
    }
    yield _gauge(
        "production_since_timestamp_seconds", "Since when a release is in production.",
        ["model", "release"], since,
    )  # fmt: skip
    for name, text in _ROWS.items():
        yield _counter(name, text, ["release", "arm"], _named(found, found.rows[_COLUMN[name]]))


_COLUMN = {
    "predictions": "rows",
    "prediction_errors": "errors",
    "labelled_right": "right",
    "labelled_wrong": "wrong",
}
_ROWS = {
    "predictions": "Rows that were answered, or seen by a shadow.",
    "prediction_errors": "Rows that the model could not answer.",
    "labelled_right": "Rows whose label came and that were right.",
    "labelled_wrong": "Rows whose label came and that were wrong.",
}


def _rollouts(found: Figures) -> Iterator[Metric]:
    yield _gauge("rollouts", "Rollouts by state.", ["model", "state"], found.rollouts)
    labels = ["rollout", "model", "metric", "slice"]
    for name, text, key in (
        ("rollout_evidence_worse_ratio", "E-value that it is worse, over what is needed.", "worse"),
        ("rollout_evidence_fine", "E-value that it is not worse.", "fine"),
        ("rollout_difference", "Candidate minus comparison.", "estimate"),
    ):
        yield _gauge(name, text, labels, _evidence(found, key))
    yield _gauge(
        "retrain_requests", "Requests to train again.", ["model", "state"], found.retraining
    )
    yield _gauge("open_alerts", "Open alerts.", ["kind"], found.alerts)
    yield _gauge(
        "unresolved_incidents", "Incidents that nobody has resolved.", ["kind", "state"],
        found.incidents,
    )  # fmt: skip
    yield _counter("decisions", "Entries in the log of decisions.", [], {(): found.decisions})


def _evidence(found: Figures, key: str) -> dict[tuple[str, ...], float]:
    values: dict[tuple[str, ...], float] = {}
    for figure in found.evidence:
        place = (figure["rollout"], figure["model"], figure["metric"], figure["slice"] or "all")
        value = {
            "worse": min(figure["e_worse"], LARGEST) / figure["worse_at"],
            "fine": min(figure["e_not_worse"], LARGEST),
            "estimate": figure["estimate"],
        }[key]
        if value is not None:
            values[place] = value
    return values


def _messages(found: Figures) -> Iterator[Metric]:
    yield _counter(
        "rejected_messages", "Messages that were not taken in.", ["kind", "reason"], found.rejected
    )
    for name in ("compared", "mismatches"):
        text = "Samples whose features were computed again."
        yield _counter(f"parity_{name}", text, ["release"], _named(found, found.parity[name]))
    for name, text, value in (
        ("desired_states_unsent", "Desired states that the broker does not hold.", found.unsent),
        ("commands_unanswered", "Commands that hold and are not answered.", found.unanswered),
        ("webhook_waiting_messages", "Messages to other systems, not taken yet.", found.telling),
        ("commands_expired", "Commands that ended and never were answered.", found.expired),
    ):
        yield _gauge(name, text, [], {(): value})
    heard = found.leader_renewed_ms
    yield _gauge(
        "leader_renewed_timestamp_seconds", "When the process that decides was last heard of.",
        [], {} if heard is None else {(): heard / 1000},
    )  # fmt: skip


def _named(found: Figures, counts: dict[tuple[str, ...], int]) -> dict[tuple[str, ...], int]:
    return {(_name(found, digest), *rest): n for (digest, *rest), n in counts.items()}


def _name(found: Figures, digest: str) -> str:
    return found.names.get(digest, "unknown" if digest else "none")


def _gauge(
    name: str, text: str, labels: list[str], values: Mapping[tuple[str, ...], float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"serinus_{name}", text, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(list(key), value)
    return family


def _counter(
    name: str, text: str, labels: list[str], values: Mapping[tuple[str, ...], int]
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"serinus_{name}", text, labels=labels)
    sums: dict[tuple[str, ...], float] = {}
    for key, value in values.items():
        sums[key] = sums.get(key, 0.0) + value
    for key, total in sorted(sums.items()):
        family.add_metric(list(key), total)
    return family
