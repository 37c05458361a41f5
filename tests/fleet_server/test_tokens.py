"""Tokens over the API: made, listed, expired, revoked, and in the log of decisions."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from fleet_server.app import create_app
from fleet_server.services.errors import NotAuthenticated
from tests.simulators.spoken_fleet import SpokenFleet

BACKENDS = ("sqlite", "postgresql")
URL = "/api/v1/tokens"


@pytest.fixture
def api(fleet: SpokenFleet) -> TestClient:
    found = TestClient(create_app(fleet.config, fleet.services))
    found.headers["Authorization"] = f"Bearer {fleet.services.tokens.create('ann', 'operator')}"
    return found


def make(api: TestClient, **body: Any) -> dict[str, str]:
    answer = api.post(URL, json={"name": "bob", "role": "viewer"} | body)
    assert answer.status_code == 201, answer.text
    return {"Authorization": f"Bearer {answer.json()['secret']}"}


def test_a_token_is_made_listed_and_revoked(fleet: SpokenFleet, api: TestClient) -> None:
    bob = make(api)
    assert api.get("/api/v1/fleet", headers=bob).status_code == 200
    session = fleet.services.tokens.log_in(bob["Authorization"].removeprefix("Bearer "))
    listed = api.get(URL)
    assert bob["Authorization"].removeprefix("Bearer ") not in listed.text
    (row,) = [row for row in listed.json()["items"] if row["name"] == "bob"]
    assert (row["role"], row["expires_ms"]) == ("viewer", None)
    assert api.delete(f"{URL}/{row['token']}").status_code == 204
    assert api.get("/api/v1/fleet", headers=bob).status_code == 401
    with pytest.raises(NotAuthenticated):
        fleet.services.tokens.session(session)
    assert api.delete(f"{URL}/{row['token']}").status_code == 404
    log = [(entry.actor, entry.action) for entry in fleet.services.audit_log.entries(0, 100)]
    assert log[1:] == [("ann", "token_created"), ("bob", "logged_in"), ("ann", "token_revoked")]


def test_a_token_ends_by_itself_and_says_so(fleet: SpokenFleet, api: TestClient) -> None:
    bob = make(api, expires_ms=fleet.clock() + 1000)
    session = fleet.services.tokens.log_in(bob["Authorization"].removeprefix("Bearer "))
    assert fleet.services.tokens.session(session).name == "bob"
    fleet.clock.now += 1000
    ended = api.get("/api/v1/fleet", headers=bob)
    assert (ended.status_code, ended.json()["type"]) == (401, "urn:serinus:problem:unauthorized")
    assert "expired" in ended.json()["detail"]
    with pytest.raises(NotAuthenticated):
        fleet.services.tokens.session(session)


@pytest.mark.parametrize(
    "body", [{"role": "king"}, {"expires_ms": 1}, {"name": ""}, {"name": "x" * 65}, {"more": 1}]
)
def test_what_makes_no_token(api: TestClient, body: dict[str, Any]) -> None:
    assert api.post(URL, json={"name": "bob", "role": "viewer"} | body).status_code == 422


@pytest.mark.parametrize("role", ["viewer", "ci", "approver"])
def test_only_operators_make_and_see_tokens(api: TestClient, role: str) -> None:
    other = make(api, role=role)
    body = {"name": "x", "role": "operator"}
    assert api.post(URL, json=body, headers=other).status_code == 403
    assert api.get(URL, headers=other).status_code == 403
    assert api.delete(f"{URL}/x", headers=other).status_code == 403


def refused(answer: Any) -> str:
    assert answer.status_code == 403, answer.text
    return str(answer.json()["detail"])


def test_a_token_for_a_model_changes_nothing_else(
    fleet: SpokenFleet, api: TestClient, repository: Any
) -> None:
    ref = fleet.approve(repository.publish("1.0.0"))
    fleet.produce(ref, ["d1"])
    own = make(api, role="operator", models=[ref.model])
    other = make(api, role="operator", models=["somebody-elses"])
    listed = [row["models"] for row in api.get(URL).json()["items"]]
    assert sorted(listed) == [[], ["somebody-elses"], [ref.model]]
    budget = f"/api/v1/budgets/{ref.model}/day"
    assert api.put(budget, json={"amount": 3.0}, headers=own).status_code == 200
    assert "is for somebody-elses only, not for tiny-motion" in refused(
        api.put(budget, json={"amount": 3.0}, headers=other)
    )
    asked = "/api/v1/retraining/requests"
    assert "not for tiny-motion" in refused(
        api.post(asked, json={"model": ref.model}, headers=other)
    )
    number = api.post(asked, json={"model": ref.model}, headers=own).json()["request"]
    assert "not for tiny-motion" in refused(api.post(f"{asked}/{number}/cancel", headers=other))
    assert api.post(f"{asked}/{number}/cancel", headers=own).status_code == 200
    started = {"release": ref.name}
    assert "not for tiny-motion" in refused(
        api.post("/api/v1/rollouts", json=started, headers=other)
    )
    worker = {"worker": "w", "models": [ref.model, "somebody-elses"]}
    refused(api.post("/api/v1/retraining/claims", json=worker, headers=own))


def test_a_token_for_a_model_reads_everything_and_changes_nothing_that_is_of_no_model(
    fleet: SpokenFleet, api: TestClient
) -> None:
    own = make(api, role="operator", models=["tiny-motion"])
    assert api.get("/api/v1/fleet", headers=own).status_code == 200
    for method, path, body in (
        ("PUT", "prices", {"device_second": 1.0}),
        ("POST", "commands", {"devices": ["d1"], "kind": "fallback_on"}),
        ("PUT", "groups/all", {"query": "name=*"}),
        ("POST", "tokens", {"name": "eve", "role": "operator"}),
        ("POST", "webhooks", {"name": "w", "url": "https://example.org", "events": ["rollout"]}),
    ):
        answer = api.request(method, f"/api/v1/{path}", json=body, headers=own)
        assert "is for tiny-motion only, and this is about all models" in refused(answer), path


def test_every_call_that_changes_something_is_closed_to_tokens_for_other_models(
    fleet: SpokenFleet, api: TestClient
) -> None:
    """Also calls that will be added: whoever forgets them finds them closed."""
    own = make(api, role="operator", models=["somebody-elses"])
    checked = 0
    for path, methods in api.get("/openapi.json").json()["paths"].items():
        for method in methods:
            if method == "get" or path in OPEN or not path.startswith("/api/v1/"):
                continue
            filled = path
            for name in ("rollout", "request", "appeal", "model", "webhook", "delivery"):
                filled = filled.replace("{" + name + "}", "7")
            answer = api.request(method, filled, headers=own, json={})
            assert answer.status_code in (403, 404, 422), (path, answer.status_code, answer.text)
            checked += 1
    assert checked > 30


OPEN = ("/api/v1/rollout-plans/check", "/api/v1/verdicts/{verdict}/replay", "/api/v1/labels")
"""They change nothing; of labels, see below."""


def test_labels_of_other_models_are_refused_one_by_one(
    fleet: SpokenFleet, api: TestClient, repository: Any
) -> None:
    ref = fleet.approve(repository.publish("1.0.0"))
    fleet.produce(ref, ["d1"])
    answer = {
        "device": "d1", "release": ref.digest, "predicted": "still", "at_ms": fleet.clock(),
    }  # fmt: skip
    told = {"items": [
        {"prediction_id": "p-1", "label": "still", "answer": answer},
        {"prediction_id": "p-2", "label": "still"},
    ]}  # fmt: skip
    other = make(api, role="ci", models=["somebody-elses"])
    found = api.post("/api/v1/labels", json=told, headers=other).json()
    reasons = {row["prediction_id"]: row["reason"] for row in found["refused"]}
    assert "is of tiny-motion, and this token is for somebody-elses only" in reasons["p-1"]
    assert "is not known yet" in reasons["p-2"]
    own = make(api, role="ci", models=[ref.model])
    found = api.post("/api/v1/labels", json=told, headers=own).json()
    assert (found["joined"], [row["prediction_id"] for row in found["refused"]]) == (1, ["p-2"])
    contested = {"prediction_id": "p-1", "reason": "no"}
    operator = make(api, role="operator", models=["somebody-elses"])
    refused(api.post("/api/v1/appeals", json=contested, headers=operator))
