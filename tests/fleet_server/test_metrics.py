"""What machines are told: numbers that agree with the fleet, and whether the server is well."""

import gc
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client import Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Receive, Scope, Send

from edge_core.messages.telemetry import StatsWindow
from edge_core.release import ReleaseRef
from fleet_server.api.timing import Timing
from fleet_server.app import create_app
from fleet_server.services.figures import KEPT_MS
from fleet_server.services.measures import ManyAtOnce, Measures
from tests.fleet_server.test_incidents import alert, collected
from tests.fleet_server.test_people_steer import NAMES, start
from tests.simulators.cluster import Cluster
from tests.simulators.postgres import PostgresServer, running
from tests.simulators.processes import wait_for
from tests.simulators.server import FleetServer
from tests.simulators.spoken_fleet import SpokenFleet
from tests.simulators.tiny_bundle import TARGET

BACKENDS = ("sqlite", "postgresql")


@pytest.fixture
def ref(fleet: SpokenFleet, repository: Any) -> ReleaseRef:
    found = fleet.approve(repository.publish("1.0.0"))
    fleet.produce(found, NAMES)
    return found


@pytest.fixture
def http(fleet: SpokenFleet) -> Iterator[TestClient]:
    with TestClient(create_app(fleet.config, fleet.services)) as client:
        yield client


def told(http: TestClient) -> dict[str, dict[tuple[str, ...], float]]:
    """Metric -> label values in the order of label names -> value."""
    answer = http.get("/metrics")
    assert answer.status_code == 200
    return parsed(answer.text)


def parsed(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[key] = sample.value
    return found


def test_metrics_agree_with_the_fleet(
    fleet: SpokenFleet, ref: ReleaseRef, repository: Any, http: TestClient
) -> None:
    new = fleet.approve(repository.publish("1.1.0", seed=1))
    rollout = start(fleet, new)
    fleet.obey()
    fleet.pass_stage(rollout)
    fleet.clock.now += KEPT_MS
    found = told(http)
    assert sum(found["serinus_devices"].values()) == 20
    assert found["serinus_devices"]["false", new.name, "committed"] == 5
    assert found["serinus_rollouts"]["tiny-motion", "promoting"] == 1
    assert found["serinus_predictions_total"]["candidate", new.name] == 5 * 600
    assert found["serinus_labelled_right_total"]["candidate", new.name] == 5 * 530
    assert found["serinus_decisions_total"][()] == 1
    assert found["serinus_production_since_timestamp_seconds"]["tiny-motion", ref.name] == 0
    key = ("accuracy", "tiny-motion", rollout, "all")
    assert found["serinus_rollout_evidence_fine"][key] >= 20
    assert found["serinus_rollout_difference"][key] > 0
    assert not any("d00" in part for values in found.values() for key in values for part in key)


def test_a_scrape_within_seconds_costs_the_database_nothing(
    fleet: SpokenFleet, ref: ReleaseRef, http: TestClient
) -> None:
    before = told(http)["serinus_devices"]
    fleet.report("new", active=ref, update="committed")
    assert told(http)["serinus_devices"] == before
    fleet.clock.now += KEPT_MS
    assert sum(told(http)["serinus_devices"].values()) == 21


def test_a_server_is_ready_with_its_database_and_says_what_is_wrong(
    fleet: SpokenFleet, ref: ReleaseRef, http: TestClient
) -> None:
    assert http.get("/healthz").json() == {"ok": True, "checks": {}}
    assert http.get("/readyz").json()["checks"] == {"database": "ok", "releases": "ok"}
    fleet.services.health.watch("ingest", lambda: "its thread has ended", alive=True)
    dead = http.get("/healthz")
    assert dead.status_code == 503
    assert dead.json()["checks"] == {"ingest": "its thread has ended"}
    assert http.get("/readyz").status_code == 503


def test_a_request_is_timed_under_its_route_and_never_under_what_it_names(
    fleet: SpokenFleet, ref: ReleaseRef, http: TestClient
) -> None:
    token = fleet.services.tokens.create("anna", "viewer")
    headers = {"Authorization": f"Bearer {token}"}
    for path in ("/api/v1/devices/d01", "/api/v1/devices/d02", "/api/v1/devices/absent"):
        http.get(path, headers=headers)
    for path in ("/api/v1/nothing", "/wp-login.php", "/repository/targets/absent"):
        http.get(path)
    http.request("BREW", "/api/v1/devices")
    assert told(http)["serinus_http_request_duration_seconds_count"] == {
        ("GET", "/api/v1/devices/{device}", "2xx"): 2,
        ("GET", "/api/v1/devices/{device}", "4xx"): 1,
        ("GET", "none", "4xx"): 2,
        ("GET", "/repository/targets/...", "4xx"): 1,
        ("other", "/api/v1/devices", "4xx"): 1,
    }


def test_a_request_that_breaks_the_server_is_timed_as_such(fleet: SpokenFleet) -> None:
    app = create_app(fleet.config, fleet.services)

    @app.get("/broken")
    def broken() -> None:
        raise AssertionError

    with TestClient(app, raise_server_exceptions=False) as http:
        assert http.get("/broken").status_code == 500
        count = told(http)["serinus_http_request_duration_seconds_count"]
        assert count["GET", "/broken", "5xx"] == 1


@pytest.mark.parametrize(("kind", "seconds"), [("text/event-stream", 2), ("text/html", 62)])
def test_a_stream_of_events_is_timed_until_it_begins(kind: str, seconds: int) -> None:
    now = 1000.0

    async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal now
        now += 2
        headers = [(b"Content-Type", f"{kind}; charset=utf-8".encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        now += 60
        await send({"type": "http.response.body", "body": b"data: 1\n\n"})

    measures = Measures()
    TestClient(Timing(answer, measures, lambda: now)).get("/anything")
    found = parsed(generate_latest(measures.registry).decode())
    key = ("GET", "none", "2xx")
    assert found["serinus_http_request_duration_seconds_sum"][key] == seconds


def test_every_window_tells_how_old_it_was_and_every_message_is_counted(
    fleet: SpokenFleet, ref: ReleaseRef, http: TestClient
) -> None:
    before = told(http)
    ages = (-3.0, 0.2, 40.0, 90.0)
    for sequence, age in enumerate(ages):
        window = windowed(fleet, ref, sequence, age)
        fleet.window(window)
        fleet.window(window)  # comes again, and is stored once
    fleet.report("d00", active=ref, update="committed")
    found = told(http)
    assert found["serinus_ingest_lag_seconds_count"][()] == len(ages)
    assert found["serinus_ingest_lag_seconds_sum"][()] == pytest.approx(0.2 + 40.0 + 90.0)
    assert found["serinus_ingest_lag_seconds_bucket"]["60.0",] == 3
    for name in ("serinus_ingest_batch_duration_seconds_count", "serinus_ingest_messages_total"):
        assert found[name][()] - before[name][()] == 2 * len(ages) + 1


def windowed(fleet: SpokenFleet, ref: ReleaseRef, sequence: int, age: float) -> StatsWindow:
    closed = fleet.clock() - round(age * 1000)
    return StatsWindow(
        device="d00", epoch="e", sequence=sequence, opened_ms=closed - 1000, closed_ms=closed,
        release=ref, target=TARGET, arm="incumbent", rows=3,
    )  # fmt: skip


def test_a_histogram_counts_many_at_once_as_the_library_counts_one_by_one() -> None:
    bounds = (0.1, 1.0, 60.0)
    values = [-5.0, 0.0, 0.1, 0.1000001, 0.99, 1.0, 59.0, 60.0, 61.0, 1e9]
    ours = ManyAtOnce("lag", "Lag.", bounds)
    theirs = Histogram("lag", "Lag.", buckets=bounds, registry=None)
    for part in (values[:3], [], values[3:]):
        ours.observe(part)
    for value in values:
        theirs.observe(max(0.0, value))
    assert samples(ours) == samples(theirs)


def samples(collector: Any) -> dict[tuple[str, str], float]:
    (family,) = collector.collect()
    return {(s.name, s.labels.get("le", "")): pytest.approx(s.value) for s in family.samples}


def test_commands_are_told_as_unanswered_while_they_hold_and_as_expired_then(
    fleet: SpokenFleet, ref: ReleaseRef, http: TestClient
) -> None:
    token = fleet.services.tokens.create("anna", "operator")
    order = {"kind": "fallback_on", "model": "tiny-motion"}
    http.post(
        "/api/v1/devices/d01/commands", json=order, headers={"Authorization": f"Bearer {token}"}
    ).raise_for_status()
    fleet.clock.now += KEPT_MS
    found = told(http)
    assert found["serinus_commands_unanswered"][()] == 1
    assert found["serinus_commands_expired"][()] == 0
    fleet.clock.now += 400 * 86_400_000
    found = told(http)
    assert found["serinus_commands_unanswered"][()] == 0
    assert found["serinus_commands_expired"][()] == 1


def scraped(port: int) -> dict[str, dict[tuple[str, ...], float]]:
    """What a process tells."""
    return parsed(httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=40).text)


def test_incidents_are_told_until_somebody_resolves_them(
    fleet: SpokenFleet, ref: ReleaseRef, http: TestClient
) -> None:
    alert(fleet)
    row = collected(fleet).incident
    fleet.clock.now += KEPT_MS
    assert told(http)["serinus_unresolved_incidents"] == {("drift", "open"): 1}
    fleet.services.incidents.resolve(row.incident, "the season", by="bob", role="operator")
    fleet.clock.now += KEPT_MS
    assert "serinus_unresolved_incidents" not in told(http)


def test_a_real_server_tells_of_all_its_parts(tmp_path: Any) -> None:
    with FleetServer(tmp_path) as server:
        ready = httpx.get(f"{server.url}/readyz")
        assert ready.status_code == 200
        parts = {"broker", "database", "decisions", "ingest", "releases"}
        assert ready.json()["checks"] == dict.fromkeys(parts, "ok")
        assert set(httpx.get(f"{server.url}/healthz").json()["checks"]) == {"decisions", "ingest"}
        rounds = "serinus_decision_duration_seconds_count"
        wait_for(lambda: scraped(server.port)[rounds][()] >= 2, seconds=20, what="two rounds")
        found = scraped(server.port)
        assert found["serinus_broker_connected"][()] == 1
        assert found["serinus_ingest_waiting_messages"][()] == 0
        assert found["serinus_check_ok"] == dict.fromkeys(((part,) for part in parts), 1)
        assert found["serinus_ready"][()] == 1
        assert found["serinus_leading"][()] == 1
        assert found["serinus_leader_renewed_timestamp_seconds"][()] > time.time() - 3600
        steps = found["serinus_decision_step_duration_seconds_count"]
        assert min(steps.values()) >= 2
        assert {("rollouts",), ("drift",), ("desired states",), ("retention",)} <= set(steps)
        assert "serinus_decision_step_failures_total" not in found


def test_each_of_several_processes_tells_what_it_does(
    tmp_path: Any, postgres: PostgresServer
) -> None:
    with Cluster(tmp_path, postgres.new_database()) as cluster:
        front = cluster.add("front", "api")
        worker = cluster.add("worker", "ingest")
        decider = cluster.add("decider", "ingest", "decide")

        def leads() -> bool:
            return scraped(decider.port).get("serinus_leading", {}).get(()) == 1

        wait_for(leads, seconds=20, what="a leader")
        told_by = {member.name: scraped(member.port) for member in (front, worker, decider)}
        for found in told_by.values():
            assert found["serinus_ready"][()] == 1
            assert "serinus_leader_renewed_timestamp_seconds" in found
        for name in ("front", "worker"):
            assert "serinus_leading" not in told_by[name]
        assert "serinus_broker_connected" not in told_by["front"]
        assert told_by["worker"]["serinus_broker_connected"][()] == 1
        assert httpx.get(f"http://127.0.0.1:{worker.port}/readyz").status_code == 200
        assert httpx.get(f"http://127.0.0.1:{worker.port}/api/v1/fleet").status_code == 404


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_database_that_is_away_takes_only_what_it_knows(tmp_path: Any) -> None:
    with running() as server:
        with Cluster(tmp_path, server.new_database()) as cluster:
            member = cluster.add("all", "api", "ingest", "decide")
            assert "serinus_devices" not in scraped(member.port)
            assert "serinus_decisions_total" in scraped(member.port)
            server.kill()
            wait_for(
                lambda: scraped(member.port)["serinus_ready"][()] == 0,
                seconds=30,
                what="the server to notice",
            )
            failed = "serinus_decision_step_failures_total"
            wait_for(lambda: failed in scraped(member.port), seconds=30, what="a step that fails")
            found = scraped(member.port)
            assert found["serinus_check_ok"]["database",] == 0
            assert found["serinus_check_ok"]["broker",] == 1
            assert "serinus_decisions_total" not in found
        gc.collect()
