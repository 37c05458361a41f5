"""The API's description: complete, true of what is answered, and the same in parts as at once."""

from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from starlette.testclient import TestClient

from edge_core.messages import topics
from edge_core.messages.telemetry import Cost, StatsWindow
from edge_core.release import ReleaseRef
from fleet_server.api import openapi
from fleet_server.api.openapi import Call
from fleet_server.api.paging import encoded
from fleet_server.app import create_app
from fleet_server.domain.retraining import Policy
from fleet_server.services.ingest import Inbound
from fleet_server.services.labels import ToldAnswer, ToldLabel
from tests.fleet_server.test_incidents import rolled_back
from tests.fleet_server.test_people_steer import NAMES
from tests.simulators.enrolling import Applicant
from tests.simulators.spoken_fleet import SpokenFleet
from tests.simulators.tiny_bundle import CLASSES, TARGET

BACKENDS = ("sqlite", "postgresql")
MODEL = "tiny-motion"
BY: dict[str, Any] = {"by": "olga", "role": "operator"}
MANY = 7


@pytest.fixture
def lived(fleet: SpokenFleet, repository: Any) -> SpokenFleet:
    """A fleet in which everything that can be listed has happened at least once."""
    old = fleet.approve(repository.publish("1.0.0"))
    fleet.produce(old, NAMES)
    new = fleet.approve(repository.publish("1.1.0", seed=1))
    services = fleet.services
    fleet.window(
        StatsWindow(
            device=NAMES[0], epoch="e", sequence=1, opened_ms=fleet.clock() - 2000,
            closed_ms=fleet.clock(), release=old, target=TARGET, arm="incumbent",
            slices={"side": "left"}, rows=10, cost=Cost(cpu_us=50, consumers={"till": 3}),
        )
    )  # fmt: skip
    for number in range(MANY):
        kind = ("stats", "state", "samples", "online")[number % 4]
        fleet.clock.now += 1000 * (number % 2)
        topic = topics.up(f"noise{number}", kind)
        services.ingest.take([Inbound(topic=topic, payload=b"\xc1")])
    rolled_back(fleet, new)
    services.incidents.collect()
    for number in range(20):
        fleet.period({(old.digest, "incumbent"): 0.9 if number >= 15 else 0.0})
    people(fleet, old)
    return fleet


def people(fleet: SpokenFleet, old: ReleaseRef) -> None:
    """What operators do."""
    services = fleet.services
    services.budgets.set_prices(
        device_second=1.0, megabyte=None, label=1.0, currency="EUR", since_ms=None, **BY
    )
    services.budgets.set(MODEL, "month", 5.0, **BY)
    services.groups.save("here", "online=true", by="olga", role="operator")
    services.webhooks.create("pager", "https://pager.example/", ["page"], **BY)
    services.consumers.declare(MODEL, "till", "shop", "", **BY)
    services.drift_responses.set_policy(MODEL, ["upstream"], **BY)
    services.drift_responses.respond(MODEL, "rethink", "it is known", **BY)
    services.commands.order(
        NAMES[:2], "fallback_on", model=MODEL, reason="", for_seconds=None, **BY
    )
    secret = services.enrol_tokens.create(
        "new-*", uses=MANY, reenrol=False, expires_ms=None, by=("olga", "operator")
    )
    for number in range(MANY):
        services.enrolment.enrol(Applicant(f"new-{number}").enrolment(secret))
        services.webhooks.test("pager")
        answer = ToldAnswer(
            device=NAMES[0], release=old.digest, predicted=CLASSES[0], at_ms=fleet.clock()
        )
        label = ToldLabel(prediction_id=f"p{number}", label=CLASSES[0], answer=answer)
        services.labels.take([label], "labeller")
        services.appeals.open(f"p{number}", reason="no", claimed=None, contact="", **BY)
    services.retraining.set_policy(Policy(model=MODEL), **BY)
    made = services.retraining.ask(MODEL, "", automation="build", **BY)
    services.retraining.cancel(made.request, "not now", **BY)
    services.retraining.ask(MODEL, "", automation="build", **BY)


@pytest.fixture
def http(lived: SpokenFleet) -> Iterator[httpx.Client]:
    app = create_app(lived.config, lived.services)
    secret = lived.services.tokens.create("olga", "operator")
    with TestClient(app, headers={"Authorization": f"Bearer {secret}"}) as client:
        yield client


def reading() -> list[Call]:
    return [call for call in openapi.every() if call.method == "GET"]


def test_every_call_says_what_it_answers() -> None:
    silent = [
        f"{call.method} {call.path}"
        for call in openapi.every()
        if (call.answers is None) != (call.status == 204)
    ]
    assert silent == []


def test_the_description_names_schemas_that_are_there(http: httpx.Client) -> None:
    described = http.get("/openapi.json").json()
    names = set(described["components"]["schemas"])
    used = set(_references(described))
    assert used <= names
    assert {"RolloutView", "Problem", "ToldLabel"} <= used
    for call in openapi.every():
        told = described["paths"][call.path][call.method.lower()]
        assert str(call.status) in told["responses"]
        assert told["summary"]


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(name := node.get("$ref"), str):
            yield name.removeprefix("#/components/schemas/")
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def addresses(http: httpx.Client) -> dict[str, str]:
    """Every call that reads JSON, by its template, with names of what is there."""
    rollout = http.get("/api/v1/rollouts").json()["items"][0]["rollout"]
    names = {
        "device": NAMES[0], "name": "here", "rollout": rollout, "prediction": "p0", "appeal": "1",
        "request": "1", "incident": "1", "webhook": "pager", "release": f"{MODEL}@1.1.0",
    }  # fmt: skip
    queries = {
        "/api/v1/labels": f"?model={MODEL}", "/api/v1/holdout": f"?model={MODEL}",
        "/api/v1/history": f"?model={MODEL}", "/api/v1/fairness": f"?release={MODEL}@1.0.0",
        "/api/v1/releases/diff": f"?before={MODEL}@1.0.0&after={MODEL}@1.1.0",
    }  # fmt: skip
    return {
        call.path: call.path.format(**names) + queries.get(call.path, "")
        for call in reading()
        if call.answers is not None and call.answers.form != "other"
    }


def test_answers_are_what_the_description_says(http: httpx.Client) -> None:
    kinds = {call.path: call.answers for call in reading()}
    empty = []
    for template, address in addresses(http).items():
        answer, told = http.get(address), kinds[template]
        assert answer.status_code == 200, (address, answer.text)
        assert told is not None
        content = answer.json()
        if told.form == "one":
            msgspec.convert(content, told.kinds[0])
            continue
        assert set(content) == {"items"} | ({"next"} if told.form == "part" else set())
        msgspec.convert(content["items"], list[told.kinds[0]])  # type: ignore[name-defined]
        if not content["items"]:
            empty.append(template)
    assert empty == [], "what was looked at says nothing where nothing is listed"


def test_refusals_are_problem_documents(http: httpx.Client) -> None:
    for address in ("/api/v1/rollouts/none", "/api/v1/appeals?cursor=x", "/api/v1/alerts?limit=0"):
        answer = http.get(address)
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "detail"} <= set(answer.json())


def test_lists_are_the_same_in_parts_as_at_once(http: httpx.Client) -> None:
    parts = {call.path for call in reading() if call.answers and call.answers.form == "part"}
    assert len(parts) >= 12
    several = 0
    for template, address in addresses(http).items():
        if template not in parts:
            continue
        whole = http.get(address, params={"limit": 1000}).json()
        assert whole["next"] is None
        for size in (1, 2):
            assert _in_parts(http, address, size) == whole["items"], (address, size)
        several += len(whole["items"]) > 2
    assert several >= 8


def _in_parts(http: httpx.Client, address: str, size: int) -> list[Any]:
    found: list[Any] = []
    cursor: dict[str, str] = {}
    while True:
        part = http.get(address, params={"limit": size} | cursor).json()
        found += part["items"]
        if part["next"] is None:
            return found
        cursor = {"cursor": part["next"]}


@pytest.mark.parametrize("cursor", ["x", "W10", "WzEsMl0", "bnVsbA", "e30"])
def test_cursors_of_other_lists_are_refused(http: httpx.Client, cursor: str) -> None:
    """Not base64, [], [1,2] where a text or number belongs, null, {}."""
    for address in ("/api/v1/rollouts", "/api/v1/rejected", "/api/v1/devices", "/api/v1/refusals"):
        answer = http.get(address, params={"cursor": cursor})
        assert answer.status_code == 422, (address, answer.text)
        assert "cursor" in answer.json()["detail"]


HUGE = 2**63


@pytest.mark.parametrize(
    "address",
    [
        f"audit?after={HUGE}", f"events?after={HUGE}", f"incidents/{HUGE}", f"appeals/{HUGE}",
        f"retraining/requests/{HUGE}", "incidents/-1", "devices/%00", "groups/%00",
        f"audit?cursor={encoded(HUGE)}", f"alerts?cursor={encoded((0, HUGE))}",
        f"devices?cursor={encoded(chr(0))}", "devices?query=%00", "history?model=%00",
    ],
)  # fmt: skip
def test_what_no_database_can_hold_is_refused(http: httpx.Client, address: str) -> None:
    answer = http.get(f"/api/v1/{address}")
    assert answer.status_code in (404, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
