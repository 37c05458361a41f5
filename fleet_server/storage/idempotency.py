"""Queries on requests that carry a key."""

import msgspec
import sqlalchemy as sa

from fleet_server.storage.rows import record
from fleet_server.storage.tables import idempotency
from fleet_server.storage.upsert import insert


class KeyedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request with its answer, once there is one."""

    identity: str
    request: str
    begun_ms: int
    done: bool = False
    status: int | None = None
    content_type: str = ""
    body: bytes = b""


def begin(connection: sa.Connection, row: KeyedRequest) -> KeyedRequest | None:
    """Store a request that is new; the one that is there where it is not."""
    values = msgspec.structs.asdict(row)
    done = connection.execute(
        insert(connection, idempotency).values(values).on_conflict_do_nothing()
    )
    if done.rowcount:
        return None
    query = sa.select(idempotency).where(idempotency.c.identity == row.identity)
    return record(connection.execute(query).mappings().one(), KeyedRequest)


def change(connection: sa.Connection, identity: str, **values: object) -> None:
    """Set columns of a request."""
    connection.execute(
        idempotency.update().where(idempotency.c.identity == identity).values(**values)
    )


def drop(connection: sa.Connection, identity: str) -> None:
    """Forget a request that did nothing."""
    connection.execute(
        idempotency.delete().where(
            idempotency.c.identity == identity, idempotency.c.done.is_(sa.false())
        )
    )


def forget(connection: sa.Connection, before_ms: int) -> None:
    """Drop requests that began before a time."""
    connection.execute(idempotency.delete().where(idempotency.c.begun_ms < before_ms))
