"""Conventions of the API on a real server: keys, pages, ETags, events as they happen."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fleet_client.client import FleetClient
from fleet_server.services import idempotency as keys
from fleet_server.services.errors import Conflict, InvalidRequest
from fleet_server.services.idempotency import Answered, StillRunning
from fleet_server.storage import devices, journal
from tests.simulators.processes import wait_for
from tests.simulators.server import FleetServer
from tests.simulators.spoken_fleet import SpokenFleet

BACKENDS = ("sqlite", "postgresql")
GROUP = {"query": "online=true"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetServer]:
    with FleetServer(tmp_path_factory.mktemp("api")) as found:
        yield found


@pytest.fixture
def http(server: FleetServer) -> Iterator[httpx.Client]:
    token = (server.data / "operator.token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=f"{server.url}/api/v1/", headers=headers, timeout=20) as found:
        yield found


def ask(http: httpx.Client, key: str, model: str = "m", **more: Any) -> httpx.Response:
    body = {"model": model, "reason": "because", **more}
    return http.post("retraining/requests", json=body, headers={"Idempotency-Key": key})


def hook(http: httpx.Client, key: str, name: str = "pager") -> httpx.Response:
    body = {"name": name, "url": "https://pager.example/"}
    return http.post("webhooks", json=body, headers={"Idempotency-Key": key})


def test_a_request_that_is_sent_again_is_answered_again_and_done_once(http: httpx.Client) -> None:
    first, second = hook(http, "k1", "one"), hook(http, "k1", "one")
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.content == second.content, "the secret as well"
    assert second.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert [row["webhook"] for row in http.get("webhooks").json()["items"]].count("one") == 1
    other = hook(http, "k1", "two")
    assert other.status_code == 422
    assert "another request" in other.json()["detail"]
    refused = hook(http, "k2", "one")
    assert refused.status_code == 409
    assert hook(http, "k2", "one").headers["idempotency-replayed"] == "true"


def test_a_key_belongs_to_its_token_and_has_to_be_one(
    http: httpx.Client, server: FleetServer
) -> None:
    assert hook(http, "shared", "three").status_code == 201
    stranger = httpx.post(
        f"{server.url}/api/v1/webhooks", json={}, headers={"Idempotency-Key": "shared"}
    )
    assert stranger.status_code == 401
    assert http.post("webhooks", json={}, headers={"Idempotency-Key": ""}).status_code == 400
    assert http.post("webhooks", json={}, headers={"Idempotency-Key": "x" * 300}).status_code == 400


def test_many_at_once_with_one_key_are_done_once(http: httpx.Client) -> None:
    found: list[int] = []

    def send() -> None:
        found.append(hook(http, "race", "four").status_code)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) <= {201, 409}, found
    assert found.count(201) >= 1
    assert [row["webhook"] for row in http.get("webhooks").json()["items"]].count("four") == 1


def test_the_client_asks_again_where_the_answer_is_lost(server: FleetServer) -> None:
    token = (server.data / "operator.token").read_text().strip()
    with FleetClient(server.url, token) as client:
        real, lost = client._http, []

        class Lossy:
            def request(self, *arguments: Any, **options: Any) -> httpx.Response:
                answer = real.request(*arguments, **options)
                if not lost:
                    lost.append(answer)
                    raise httpx.RemoteProtocolError("the way back is cut")
                return answer

            def close(self) -> None:
                real.close()

        client._http = Lossy()  # type: ignore[assignment]
        assert client.create_webhook("five", "https://pager.example/")["secret"]
        assert lost[0].status_code == 201


@pytest.mark.parametrize("cursor", ["x", "bm90IGpzb24", "MTI", "%00"])
def test_a_cursor_that_is_none_is_refused(http: httpx.Client, cursor: str) -> None:
    assert http.get("devices", params={"cursor": cursor}).status_code == 422


def test_what_was_not_changed_is_not_sent_again(http: httpx.Client) -> None:
    http.put("groups/here", json=GROUP)
    seen = http.get("groups/here")
    tag = seen.headers["etag"]
    again = http.get("groups/here", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    changed = http.put("groups/here", json={"query": "online=false"}, headers={"If-Match": tag})
    assert changed.status_code < 300
    late = http.put("groups/here", json=GROUP, headers={"If-Match": tag})
    assert late.status_code == 412
    assert late.headers["content-type"] == "application/problem+json"
    assert late.json()["type"] == "urn:serinus:problem:precondition-failed"
    assert http.get("groups/here").json()["query"] == "online=false"
    assert http.get("groups/here", headers={"If-None-Match": tag}).status_code == 200


def test_of_many_who_saw_the_same_state_one_is_let_through(
    http: httpx.Client, server: FleetServer
) -> None:
    """With and without a condition at the same time; each that passes has seen what it replaces."""
    assert http.put("groups/race", json=GROUP).status_code < 300
    for number in range(5):
        tag = http.get("groups/race").headers["etag"]
        found: list[int] = []
        begin = threading.Barrier(8)

        def change(own: int, tag: str = tag, begin: Any = begin, found: Any = found) -> None:
            body = {"query": f"online=true tag=t{own}"}
            begin.wait()
            answer = http.put("groups/race", json=body, headers={"If-Match": tag})
            found.append(answer.status_code)

        threads = [threading.Thread(target=change, args=(8 * number + n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == [200] + [412] * 7


def test_events_are_told_as_they_happen_and_through_a_restart(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    with FleetServer(tmp_path) as server:
        client = server.client

        def listen() -> None:
            token = (server.data / "operator.token").read_text().strip()
            with FleetClient(server.url, token) as own:
                for event in own.follow_events(0):
                    heard.append(event)
                    if event["subject"] == "label-2":
                        return

        server.publish("1.0.0")
        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        wait_for(lambda: bool(heard), seconds=10, what="the first event")
        server.restart()
        seen = len(heard)
        server.publish("1.1.0")
        wait_for(lambda: len(heard) > seen, seconds=20, what="an event after the restart")
        time.sleep(0.5)
        numbers = [event["event"] for event in heard]
        assert numbers == [event["event"] for event in client.events()], "none twice, none left out"


def test_pages_go_on_after_what_they_showed(fleet: SpokenFleet) -> None:
    def add(names: list[str]) -> None:
        with fleet.services.database.write() as connection:
            for name in names:
                devices.seen(connection, name, fleet.clock(), alive=True)

    add([f"d{number:02}" for number in range(0, 20, 2)])
    first = fleet.services.overview.devices(limit=4)
    add(["d01", "d07"])
    second = fleet.services.overview.devices(after=first[-1].device, limit=4)
    assert [d.device for d in first + second] == [
        *("d00", "d02", "d04", "d06"),
        *("d07", "d08", "d10", "d12"),
    ]
    some = fleet.services.overview.devices(query="name=d01,d18", limit=10)
    assert [d.device for d in some] == ["d01", "d18"]
    with pytest.raises(InvalidRequest):
        fleet.services.overview.devices(query="online")


def test_what_was_done_by_a_server_that_died_is_not_done_again(fleet: SpokenFleet) -> None:
    requests = fleet.services.idempotency
    database = fleet.services.database

    def effect() -> None:
        with database.write() as connection:
            journal.add_event(connection, fleet.clock(), "test", "x", "done")

    assert requests.begin("a", "1") is None
    with requests.marking("a"):
        effect()
    effect()  # outside, it marks nothing
    with pytest.raises(StillRunning):
        requests.begin("a", "1")
    fleet.clock.now += keys.RUNNING_MS + 1
    with pytest.raises(Conflict, match="its answer is lost"):
        requests.begin("a", "1")
    assert requests.begin("b", "1") is None
    fleet.clock.now += keys.RUNNING_MS + 1
    assert requests.begin("b", "1") is None, "it died before it did anything"
    requests.end("b", None)
    assert requests.begin("b", "2") is None, "what did nothing is forgotten"
    answer = Answered(status=201, content_type="application/json", body=b"{}")
    requests.end("b", answer)
    assert requests.begin("b", "2") == answer
    fleet.clock.now += keys.KEPT_MS + 1
    assert requests.begin("b", "3") is None


def test_a_refused_transaction_marks_no_key(fleet: SpokenFleet) -> None:
    requests = fleet.services.idempotency
    assert requests.begin("a", "1") is None

    def half() -> None:
        with fleet.services.database.write() as connection:
            journal.add_event(connection, fleet.clock(), "test", "x", "half")
            raise ZeroDivisionError

    with requests.marking("a"), pytest.raises(ZeroDivisionError):
        half()
    fleet.clock.now += keys.RUNNING_MS + 1
    assert requests.begin("a", "1") is None
