"""Contested answers, over HTTP: opened, explained, decided, and counted in their slices."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastapi.testclient import TestClient

from edge_core.messages import codec
from edge_core.messages.telemetry import Sample
from edge_core.release import ReleaseRef
from fleet_server.app import create_app
from tests.fleet_server.test_labels import sample, send
from tests.simulators.spoken_fleet import SpokenFleet

BACKENDS = ("sqlite", "postgresql")


@pytest.fixture
def ref(fleet: SpokenFleet, repository: Any) -> ReleaseRef:
    found = fleet.approve(repository.publish("1.0.0"))
    fleet.produce(found, ["d1"])
    return found


@pytest.fixture
def http(fleet: SpokenFleet) -> Iterator[TestClient]:
    token = fleet.services.tokens.create("ann", "operator")
    app = create_app(fleet.config, fleet.services)
    with TestClient(app, headers={"Authorization": f"Bearer {token}"}) as client:
        yield client


def opened(http: TestClient, name: str = "p-1", **more: Any) -> Any:
    body = {"prediction_id": name, "reason": "I stood still", **more}
    return http.post("/api/v1/appeals", json=body)


def decide(http: TestClient, number: int, decision: str, **more: Any) -> Any:
    body = {"decision": decision, "reason": "seen on video", **more}
    return http.post(f"/api/v1/appeals/{number}/decision", json=body)


def test_an_upheld_appeal_corrects_the_label_and_counts_in_its_slice(
    fleet: SpokenFleet, ref: ReleaseRef, http: TestClient
) -> None:
    send(fleet, sample(ref, fleet, "p-1", "tilt"))
    appeal = opened(http, label="still", contact="desk 4")
    assert appeal.status_code == 201
    about = appeal.json()["about"]
    assert about["release"] == "tiny-motion@1.0.0"
    assert about["prediction"]["slices"] == {"side": "left"}
    decided = decide(http, 1, "upheld").json()
    assert (decided["state"], decided["label"], decided["decided_by"]) == ("upheld", "still", "ann")
    assert decided["about"]["labels"][-1]["label"] == "still"
    assert decided["about"]["labels"][-1]["told_by"] == "appeal 1"
    report = http.get("/api/v1/fairness", params={"release": "tiny-motion@1.0.0"}).json()
    (left,) = (part for part in report["slices"] if part["figure"]["slice"] == "side=left")
    assert (left["appeals"], left["upheld"], left["told"]) == (1, 1, 1)
    recall = {entry["label"]: entry["recall"] for entry in left["classes"]}
    assert recall == {"still": 0.0, "shake": None, "tilt": None}


def test_a_rejected_appeal_changes_no_label(
    fleet: SpokenFleet, ref: ReleaseRef, http: TestClient
) -> None:
    send(fleet, sample(ref, fleet, "p-1", "tilt"))
    opened(http, label="still")
    decided = decide(http, 1, "rejected").json()
    assert (decided["state"], decided["about"]["labels"]) == ("rejected", [])
    assert decide(http, 1, "upheld").status_code == 409
    assert opened(http).status_code == 201  # it may be contested again


def test_what_makes_no_sense_is_refused(
    fleet: SpokenFleet, ref: ReleaseRef, http: TestClient
) -> None:
    send(fleet, sample(ref, fleet, "p-1", "tilt"))
    assert opened(http, "unknown").status_code == 404
    assert opened(http, label="flying").status_code == 422
    assert opened(http).status_code == 201
    assert opened(http).status_code == 409
    assert decide(http, 1, "maybe").status_code == 422
    no_answer = decide(http, 1, "upheld")
    assert no_answer.status_code == 422
    assert "name its label" in no_answer.json()["detail"]
    assert decide(http, 1, "upheld", label="tilt").status_code == 422
    assert decide(http, 99, "rejected").status_code == 404
    assert http.get("/api/v1/appeals/99").status_code == 404


def test_what_it_was_computed_from_is_kept_as_long_as_it_is_contested(
    fleet: SpokenFleet, ref: ReleaseRef, http: TestClient
) -> None:
    said = sample(ref, fleet, "p-1", "tilt")
    send(fleet, said, sample(ref, fleet, "p-2"))
    opened(http)
    fleet.clock.now += 200 * 86_400_000
    fleet.services.labels.forget()
    kept = http.get("/api/v1/appeals/1/sample")
    assert codec.decode(Sample, kept.content) == said
    assert http.get("/api/v1/predictions/p-2").status_code == 404
    explanation = {"method": "occlusion", "contributions": {"ax": 0.5, "ay": -0.1}}
    told = http.put("/api/v1/appeals/1/explanation", json=explanation).json()
    assert told["explanation"]["contributions"] == {"ax": 0.5, "ay": -0.1}
    assert http.get("/api/v1/appeals", params={"state": "open"}).json()["items"] == [told]
    assert http.get("/api/v1/appeals", params={"state": "lost"}).status_code == 422


def test_labels_come_in_bulk_over_http(
    fleet: SpokenFleet, ref: ReleaseRef, http: TestClient, tmp_path: Path
) -> None:
    send(fleet, *(sample(ref, fleet, f"p-{i}") for i in range(20)))
    items = [{"prediction_id": f"p-{i}", "label": "still"} for i in range(4000)]
    taken = http.post("/api/v1/labels", json={"items": items})
    assert taken.status_code == 200
    assert (taken.json()["joined"], taken.json()["waiting"]) == (20, 3980)
    assert http.post("/api/v1/labels", json={"items": [{"label": "still"}]}).status_code == 422
    assert http.post("/api/v1/labels", content=b"\xff").status_code == 422
    huge = msgspec.json.encode({"items": items * 30})
    assert http.post("/api/v1/labels", content=huge).status_code == 413
    viewer = fleet.services.tokens.create("bob", "viewer")
    refused = http.post(
        "/api/v1/labels", json={"items": []}, headers={"Authorization": f"Bearer {viewer}"}
    )
    assert refused.status_code == 403
