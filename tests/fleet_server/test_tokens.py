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
