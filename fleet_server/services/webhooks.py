"""Tells receivers of events: at least once, signed, until each has answered or a day has passed.

The journal is the outbox's source: it is read by number, in one transaction with the messages that
are made of it, so that every event is told whatever is killed when.
"""

import random
import re
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec
import sqlalchemy as sa

from fleet_server.domain import webhook as rules
from fleet_server.services.clock import Clock
from fleet_server.services.errors import Conflict, InvalidRequest, NotFound
from fleet_server.storage import audit, incidents, journal, webhooks
from fleet_server.storage.database import Database
from fleet_server.storage.journal import Event
from fleet_server.storage.webhooks import (
    DELIVERED,
    FAILED,
    PENDING,
    StoredDelivery,
    StoredWebhook,
)

READER = ALERT = "webhooks"
NAME = r"^[a-z0-9][a-z0-9-]{0,62}\Z"
MOST_EVENTS = 500
MOST_AT_ONCE = 50
MOST_WEBHOOKS = 50
MAX_ANSWER = 200
KEPT_MS = 30 * 86_400_000
GONE = 410


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """One message, ready to be sent."""

    delivery: int
    webhook: str
    url: str
    headers: dict[str, str]
    body: bytes


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver without its secret."""

    webhook: str
    url: str
    kinds: list[str]
    created_ms: int
    created_by: str
    disabled_ms: int | None
    problem: str
    secret: str | None = None
    """Said once, when it is made."""


class Webhooks:
    """Use cases on receivers and messages."""

    def __init__(
        self, database: Database, clock: Clock, draw: Callable[[], float] = random.random
    ) -> None:
        self._database = database
        self._clock = clock
        self._draw = draw

    def create(self, name: str, url: str, kinds: Sequence[str], *, by: str, role: str) -> Shown:
        """Tell a receiver of events from now on; the answer alone holds the secret.

        Raises:
            InvalidRequest: the name, the address or a kind makes no sense.
            Conflict: there is one of that name, or too many.
        """
        if not re.match(NAME, name):
            raise InvalidRequest("a webhook's name is of a-z, 0-9 and -, at most 63 of them")
        problem = rules.problem_of_url(url)
        if problem:
            raise InvalidRequest(f"the webhook's address is not usable: {problem}")
        unknown = sorted(set(kinds) - set(rules.KINDS))
        if unknown or not kinds:
            said = f"{unknown[0][:32]!r} is no kind of event" if unknown else "no kind of event"
            raise InvalidRequest(f"{said}; known are {', '.join(rules.KINDS)}")
        with self._database.write() as connection:
            now = self._clock()
            known = webhooks.every(connection)
            if any(row.webhook == name for row in known):
                raise Conflict(
                    f"there is a webhook {name!r}: remove it first, or take another name"
                )
            if len(known) >= MOST_WEBHOOKS:
                raise Conflict(f"there are {MOST_WEBHOOKS} webhooks; more are not told")
            row = StoredWebhook(
                webhook=name,
                url=url,
                secret=rules.secret_text(secrets.token_bytes(rules.SECRET_BYTES)),
                kinds=sorted(set(kinds)),
                created_ms=now,
                created_by=by,
            )
            webhooks.add(connection, row)
            audit.record(
                connection, at_ms=now, actor=by, role=role, action="webhook.create",
                subject=name, detail={"url": url, "kinds": row.kinds},
            )  # fmt: skip
        return msgspec.structs.replace(_shown(row), secret=row.secret)

    def every(self) -> list[Shown]:
        """All receivers."""
        with self._database.read() as connection:
            return [_shown(row) for row in webhooks.every(connection)]

    def remove(self, name: str, *, by: str, role: str) -> None:
        """Tell a receiver no more; raise :class:`NotFound`."""
        with self._database.write() as connection:
            if not webhooks.remove(connection, name):
                raise _unknown(name)
            audit.record(
                connection, at_ms=self._clock(), actor=by, role=role, action="webhook.remove",
                subject=name,
            )  # fmt: skip

    def test(self, name: str) -> StoredDelivery:
        """Send a message that means nothing; raise :class:`NotFound`."""
        with self._database.write() as connection:
            now = self._clock()
            if webhooks.one(connection, name) is None:
                raise _unknown(name)
            event = Event(event=0, at_ms=now, kind="test", subject=name, text="a test")
            webhooks.change(connection, name, disabled_ms=None)
            webhooks.put_in(connection, [_message(name, event, now)])
            return webhooks.of_webhook(connection, name, 1)[0]

    def deliveries(self, name: str, limit: int, before: int | None = None) -> list[StoredDelivery]:
        """A receiver's messages, newest first; raise :class:`NotFound`."""
        with self._database.read() as connection:
            if webhooks.one(connection, name) is None:
                raise _unknown(name)
            return webhooks.of_webhook(connection, name, limit, before)

    def redeliver(self, number: int) -> StoredDelivery:
        """Send a message once more, now.

        Raises:
            NotFound: there is none.
        """
        with self._database.write() as connection:
            now = self._clock()
            row = webhooks.delivery(connection, number)
            if row is None:
                raise NotFound(f"no delivery {number}; see: serinus webhook deliveries NAME")
            webhooks.change(connection, row.webhook, disabled_ms=None)
            webhooks.change_delivery(
                connection, number, state=PENDING, attempts=0, created_ms=now, due_ms=now,
                ended_ms=None,
            )  # fmt: skip
            found = webhooks.delivery(connection, number)
            assert found is not None
            return found

    def collect(self) -> None:
        """Put a message into the outbox for every event that a receiver wants."""
        with self._database.read() as connection:
            last = incidents.cursor(connection, READER)
            if not journal.events_after(connection, last, 1):
                return
        with self._database.write() as connection:
            now = self._clock()
            last = incidents.cursor(connection, READER)
            news = journal.events_after(connection, last, MOST_EVENTS)
            if not news:
                return
            rows = [
                _message(row.webhook, event, now)
                for row in webhooks.every(connection)
                if row.disabled_ms is None
                for event in news
                if event.at_ms >= row.created_ms
                and rules.wants(row.kinds, event.kind, event.detail)
            ]
            webhooks.put_in(connection, rows)
            webhooks.forget(connection, now - KEPT_MS)
            incidents.move_cursor(connection, READER, news[-1].event)

    def to_send(self) -> list[Outgoing]:
        """Messages that are due, signed for this moment."""
        now = self._clock()
        with self._database.read() as connection:
            known = {row.webhook: row for row in webhooks.every(connection)}
            rows = webhooks.due(connection, now, MOST_AT_ONCE)
        return [_outgoing(row, known[row.webhook], now // 1000) for row in rows]

    def note(self, number: int, status: int | None, answer: str) -> None:
        """Note what came of an attempt; ``status`` is none where nobody answered."""
        with self._database.write() as connection:
            row = webhooks.delivery(connection, number)
            if row is None or row.state != PENDING:
                return
            now = self._clock()
            told = answer[:MAX_ANSWER]
            attempts = row.attempts + 1
            if status is not None and 200 <= status < 300:
                webhooks.change_delivery(
                    connection, number, state=DELIVERED, attempts=attempts, ended_ms=now,
                    answer=told,
                )  # fmt: skip
                webhooks.change(connection, row.webhook, problem="")
                journal.close_alert(connection, now, ALERT, row.webhook)
                return
            webhooks.change(connection, row.webhook, problem=told)
            if status == GONE or now - row.created_ms >= rules.GIVEN_UP_MS:
                self._give_up(connection, row, attempts, told, now, gone=status == GONE)
                return
            due = now + rules.next_ms(attempts, self._draw())
            webhooks.change_delivery(connection, number, attempts=attempts, due_ms=due, answer=told)

    def _give_up(
        self,
        connection: sa.Connection,
        row: StoredDelivery,
        attempts: int,
        told: str,
        now_ms: int,
        *,
        gone: bool,
    ) -> None:
        webhooks.change_delivery(
            connection, row.delivery, state=FAILED, attempts=attempts, ended_ms=now_ms, answer=told
        )
        why = "says that it is gone" if gone else "did not take a message for a day"
        title = f"the webhook {row.webhook} {why} and is told no more: {told}"
        webhooks.change(connection, row.webhook, disabled_ms=now_ms)
        detail = {"webhook": row.webhook, "delivery": row.delivery}
        if journal.open_alert(connection, now_ms, ALERT, row.webhook, title, detail):
            journal.add_event(connection, now_ms, "webhook", row.webhook, title, detail)


def _message(name: str, event: Event, now_ms: int) -> StoredDelivery:
    at = datetime.fromtimestamp(event.at_ms / 1000, UTC).isoformat()
    severity = rules.PAGE if rules.pages(event.kind, event.detail) else "info"
    data = {
        "event": event.event, "kind": event.kind, "subject": event.subject, "text": event.text,
        "severity": severity, "detail": event.detail,
    }  # fmt: skip
    body = {"type": f"serinus.{event.kind}", "timestamp": at, "data": data}
    return StoredDelivery(
        delivery=0,
        webhook=name,
        message=f"msg_{secrets.token_hex(12)}",
        event=event.event or None,
        body=msgspec.json.encode(body).decode(),
        state=PENDING,
        attempts=0,
        created_ms=now_ms,
        due_ms=now_ms,
    )


def _outgoing(row: StoredDelivery, receiver: StoredWebhook, now_s: int) -> Outgoing:
    body = row.body.encode()
    return Outgoing(
        delivery=row.delivery,
        webhook=row.webhook,
        url=receiver.url,
        headers={
            "content-type": "application/json",
            "user-agent": "serinus",
            "webhook-id": row.message,
            "webhook-timestamp": str(now_s),
            "webhook-signature": rules.signature(receiver.secret, row.message, now_s, body),
        },
        body=body,
    )


def _shown(row: StoredWebhook) -> Shown:
    return Shown(
        webhook=row.webhook, url=row.url, kinds=row.kinds, created_ms=row.created_ms,
        created_by=row.created_by, disabled_ms=row.disabled_ms, problem=row.problem,
    )  # fmt: skip


def _unknown(name: str) -> NotFound:
    return NotFound(f"no webhook {name[:64]!r}; see: serinus webhook list")
