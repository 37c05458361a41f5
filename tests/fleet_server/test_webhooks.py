"""Events reach a real receiver: signed, at least once, and not for ever."""

import json
from typing import Any

import pytest

from fleet_server.domain import webhook as rules
from fleet_server.services.errors import Conflict, InvalidRequest, NotFound
from fleet_server.storage import journal
from fleet_server.webhook_sender import WebhookSender
from tests.simulators.processes import free_port, wait_for
from tests.simulators.receiver import Got, Receiver
from tests.simulators.server import FleetServer
from tests.simulators.spoken_fleet import SpokenFleet

BACKENDS = ("sqlite", "postgresql")
PAGE = {"severity": "page"}


def create(fleet: SpokenFleet, url: str, *kinds: str) -> str:
    made = fleet.services.webhooks.create(
        "pager", url, kinds or ["page"], by="ann", role="operator"
    )
    assert made.secret is not None
    return made.secret


def happen(fleet: SpokenFleet, kind: str = "rollout", **detail: Any) -> int:
    with fleet.services.database.write() as connection:
        now = fleet.clock()
        return journal.add_event(connection, now, kind, "tiny-motion", "it is worse", detail)


def round_of(fleet: SpokenFleet, *, may: bool = True, private: bool = True) -> None:
    """What the leader does, until it is done."""
    fleet.services.webhooks.collect()
    sender = WebhookSender(fleet.services.webhooks, private=private)
    sender.send(lambda: may)
    sender._pool.shutdown(wait=True)


def verified(got: Got, secret: str) -> Any:
    """As a receiver does it."""
    at = int(got.headers["webhook-timestamp"])
    expected = rules.signature(secret, got.headers["webhook-id"], at, got.body)
    assert got.headers["webhook-signature"] == expected
    return json.loads(got.body)


def test_a_page_reaches_the_receiver_signed_and_once(fleet: SpokenFleet) -> None:
    with Receiver() as receiver:
        secret = create(fleet, receiver.url)
        happen(fleet, "device")
        number = happen(fleet, **PAGE)
        for _ in range(3):
            round_of(fleet)
        (got,) = receiver.got
    told = verified(got, secret)
    assert told["type"] == "serinus.rollout"
    assert told["data"]["event"] == number
    assert told["data"]["severity"] == "page"
    (row,) = fleet.services.webhooks.deliveries("pager", 10)
    assert (row.state, row.attempts) == ("delivered", 1)


def test_what_happened_before_is_not_told(fleet: SpokenFleet) -> None:
    happen(fleet, **PAGE)
    fleet.clock.now += 1000
    with Receiver() as receiver:
        create(fleet, receiver.url)
        round_of(fleet)
        assert not receiver.got


def test_who_fails_is_tried_again_later_with_the_same_message(fleet: SpokenFleet) -> None:
    with Receiver(500, 302, 204) as receiver:
        secret = create(fleet, receiver.url)
        happen(fleet, **PAGE)
        round_of(fleet)
        round_of(fleet)
        assert len(receiver.got) == 1, "not before its time"
        (row,) = fleet.services.webhooks.every()
        assert row.problem.startswith("500")
        for _ in range(2):
            fleet.clock.now += 60_000
            round_of(fleet)
        bodies = [verified(got, secret) for got in receiver.got]
    assert len(bodies) == 3, "a redirect is not followed"
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 1
    (delivery,) = fleet.services.webhooks.deliveries("pager", 10)
    assert (delivery.state, delivery.attempts) == ("delivered", 3)
    assert not fleet.services.webhooks.every()[0].problem


def test_who_is_away_for_a_day_is_told_no_more_and_somebody_hears_of_it(
    fleet: SpokenFleet,
) -> None:
    create(fleet, f"http://127.0.0.1:{free_port()}/hook")
    happen(fleet, **PAGE)
    round_of(fleet)
    fleet.clock.now += rules.GIVEN_UP_MS
    round_of(fleet)
    (title,) = fleet.alerts("webhooks")
    assert "is told no more" in title
    happen(fleet, **PAGE)
    round_of(fleet)
    assert [row.state for row in fleet.services.webhooks.deliveries("pager", 10)] == ["failed"]


def test_a_test_tells_a_disabled_receiver_again(fleet: SpokenFleet) -> None:
    with Receiver(410, 204) as receiver:
        create(fleet, receiver.url)
        happen(fleet, **PAGE)
        round_of(fleet)
        assert fleet.services.webhooks.every()[0].disabled_ms is not None
        fleet.services.webhooks.test("pager")
        round_of(fleet)
        assert not fleet.alerts("webhooks")
        failed = fleet.services.webhooks.deliveries("pager", 10)[-1]
        assert fleet.services.webhooks.redeliver(failed.delivery).state == "pending"
        round_of(fleet)
        assert [row.state for row in fleet.services.webhooks.deliveries("pager", 10)] == [
            "delivered",
            "delivered",
        ]
        assert len(receiver.got) == 3


def test_who_does_not_lead_sends_nothing(fleet: SpokenFleet) -> None:
    with Receiver() as receiver:
        create(fleet, receiver.url)
        happen(fleet, **PAGE)
        round_of(fleet, may=False)
        assert not receiver.got
        round_of(fleet)
        assert len(receiver.got) == 1


def test_inner_addresses_are_not_called_unless_allowed(fleet: SpokenFleet) -> None:
    with Receiver() as receiver:
        create(fleet, receiver.url)
        happen(fleet, **PAGE)
        round_of(fleet, private=False)
        assert not receiver.got
    assert "private" in fleet.services.webhooks.every()[0].problem


def test_nonsense_is_refused(fleet: SpokenFleet) -> None:
    hooks = fleet.services.webhooks
    for name, url, kinds in (
        ("Pager!", "https://a.example/", ["page"]),
        ("pager", "file:///etc/passwd", ["page"]),
        ("pager", "https://a.example/", ["weather"]),
        ("pager", "https://a.example/", []),
    ):
        with pytest.raises(InvalidRequest):
            hooks.create(name, url, kinds, by="ann", role="operator")
    create(fleet, "https://a.example/")
    with pytest.raises(Conflict):
        create(fleet, "https://a.example/")
    for call in (
        lambda: hooks.test("other"),
        lambda: hooks.deliveries("other", 1),
        lambda: hooks.redeliver(77),
        lambda: hooks.remove("other", by="ann", role="operator"),
    ):
        with pytest.raises(NotFound):
            call()
    hooks.remove("pager", by="ann", role="operator")
    assert not hooks.every()


def test_a_server_that_is_killed_sends_what_it_had_not_sent(tmp_path: Any) -> None:
    port = free_port()
    with FleetServer(tmp_path) as server:
        client = server.client
        secret = client.create_webhook("pager", f"http://127.0.0.1:{port}/hook")["secret"]
        client.test_webhook("pager")
        wait_for(
            lambda: client.deliveries("pager")[0]["attempts"] > 0, seconds=20, what="an attempt"
        )
        server.process.kill()
        with Receiver(port=port) as receiver:
            server.process.start()
            wait_for(lambda: bool(receiver.got), seconds=40, what="the message after the kill")
            verified(receiver.got[0], secret)
