"""What machines are told: numbers that agree with the fleet, and whether the server is well."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from edge_core.release import ReleaseRef
from fleet_server.app import create_app
from fleet_server.services.figures import KEPT_MS
from tests.fleet_server.test_people_steer import NAMES, start
from tests.simulators.server import FleetServer
from tests.simulators.spoken_fleet import SpokenFleet

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
    found: dict[str, dict[tuple[str, ...], float]] = {}
    answer = http.get("/metrics")
    assert answer.status_code == 200
    for family in text_string_to_metric_families(answer.text):
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


def test_a_real_server_tells_of_all_its_parts(tmp_path: Any) -> None:
    with FleetServer(tmp_path) as server:
        ready = httpx.get(f"{server.url}/readyz")
        assert ready.status_code == 200
        parts = {"broker", "database", "decisions", "ingest", "releases"}
        assert ready.json()["checks"] == dict.fromkeys(parts, "ok")
        assert set(httpx.get(f"{server.url}/healthz").json()["checks"]) == {"decisions", "ingest"}
        text = httpx.get(f"{server.url}/metrics").text
        assert "serinus_broker_connected 1.0" in text
        assert "serinus_ingest_waiting_messages" in text
