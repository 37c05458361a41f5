"""Queries on webhooks and on what is on its way to them."""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from fleet_server.storage import keyset
from fleet_server.storage.keyset import Key
from fleet_server.storage.rows import record
from fleet_server.storage.tables import deliveries, webhooks

PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"


class StoredWebhook(msgspec.Struct, frozen=True, kw_only=True):
    """One receiver."""

    webhook: str
    url: str
    secret: str
    kinds: list[str]
    created_ms: int
    created_by: str
    disabled_ms: int | None = None
    problem: str = ""
    """Why the last attempt failed; empty where it did not."""


class StoredDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """One message to one receiver."""

    delivery: int
    webhook: str
    message: str
    event: int | None
    body: str
    state: str
    attempts: int
    created_ms: int
    due_ms: int
    ended_ms: int | None = None
    answer: str = ""


def add(connection: sa.Connection, row: StoredWebhook) -> None:
    """Store a new receiver."""
    connection.execute(webhooks.insert().values(msgspec.structs.asdict(row)))


def every(connection: sa.Connection) -> list[StoredWebhook]:
    """All receivers, by name."""
    query = sa.select(webhooks).order_by(webhooks.c.webhook)
    return [record(row, StoredWebhook) for row in connection.execute(query).mappings()]


def one(connection: sa.Connection, name: str) -> StoredWebhook | None:
    """One receiver."""
    query = sa.select(webhooks).where(webhooks.c.webhook == name)
    row = connection.execute(query).mappings().first()
    return None if row is None else record(row, StoredWebhook)


def change(connection: sa.Connection, name: str, **values: object) -> None:
    """Set columns of a receiver."""
    connection.execute(webhooks.update().where(webhooks.c.webhook == name).values(**values))


def remove(connection: sa.Connection, name: str) -> bool:
    """Remove a receiver with all that is on its way to it; whether there was one."""
    connection.execute(deliveries.delete().where(deliveries.c.webhook == name))
    done = connection.execute(webhooks.delete().where(webhooks.c.webhook == name))
    return bool(done.rowcount)


def put_in(connection: sa.Connection, rows: Sequence[StoredDelivery]) -> None:
    """Put messages into the outbox."""
    if rows:
        values = [msgspec.structs.asdict(row) for row in rows]
        for value in values:
            del value["delivery"]
        connection.execute(deliveries.insert(), values)


def due(connection: sa.Connection, now_ms: int, limit: int) -> list[StoredDelivery]:
    """Messages that should be sent now, the oldest first, of receivers that take them."""
    query = (
        sa.select(deliveries)
        .join(webhooks, webhooks.c.webhook == deliveries.c.webhook)
        .where(
            deliveries.c.state == PENDING,
            deliveries.c.due_ms <= now_ms,
            webhooks.c.disabled_ms.is_(None),
        )
        .order_by(deliveries.c.due_ms, deliveries.c.delivery)
        .limit(limit)
    )
    return [record(row, StoredDelivery) for row in connection.execute(query).mappings()]


def of_webhook(
    connection: sa.Connection, name: str, limit: int, before: int | None = None
) -> list[StoredDelivery]:
    """A receiver's messages, newest first, of those before a number."""
    query = sa.select(deliveries).where(deliveries.c.webhook == name)
    keys = [Key(deliveries.c.delivery, descending=True)]
    query = keyset.part(query, keys, None if before is None else [before], limit)
    return [record(row, StoredDelivery) for row in connection.execute(query).mappings()]


def delivery(connection: sa.Connection, number: int) -> StoredDelivery | None:
    """One message."""
    query = sa.select(deliveries).where(deliveries.c.delivery == number)
    row = connection.execute(query).mappings().first()
    return None if row is None else record(row, StoredDelivery)


def change_delivery(connection: sa.Connection, number: int, **values: object) -> None:
    """Set columns of a message."""
    connection.execute(deliveries.update().where(deliveries.c.delivery == number).values(**values))


def waiting(connection: sa.Connection) -> int:
    """Messages in the outbox."""
    query = sa.select(sa.func.count()).select_from(deliveries).where(deliveries.c.state == PENDING)
    return int(connection.execute(query).scalar_one())


def forget(connection: sa.Connection, before_ms: int) -> None:
    """Drop messages that ended long ago."""
    connection.execute(deliveries.delete().where(deliveries.c.ended_ms < before_ms))
