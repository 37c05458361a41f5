"""Queries on releases that devices have refused."""

import msgspec
import sqlalchemy as sa

from fleet_server.storage import keyset
from fleet_server.storage.keyset import Key
from fleet_server.storage.rows import record
from fleet_server.storage.tables import (
    refusals,
)
from fleet_server.storage.upsert import insert


class StoredRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """A release that a device would not install."""

    device: str
    digest: str
    name: str
    reason: str
    at_ms: int


def add(connection: sa.Connection, row: StoredRefusal) -> bool:
    """Store a refusal; whether it was not known."""
    values = msgspec.structs.asdict(row)
    done = connection.execute(
        insert(connection, refusals)
        .values(values)
        .on_conflict_do_update(
            index_elements=["device", "digest"],
            set_=values,
            where=refusals.c.at_ms < row.at_ms,
        )
    )
    return bool(done.rowcount)


def by_device(connection: sa.Connection, device: str) -> dict[str, int]:
    """Digest -> when one device refused it, by its own clock."""
    found = sa.select(refusals.c.digest, refusals.c.at_ms).where(refusals.c.device == device)
    return {row.digest: row.at_ms for row in connection.execute(found)}


def count(connection: sa.Connection, digest: str) -> int:
    """How many devices refuse a release."""
    count = sa.select(sa.func.count()).where(refusals.c.digest == digest)
    return int(connection.execute(count).scalar_one())


def forget(connection: sa.Connection, device: str, keep: int) -> None:
    """Drop what a device refused, but for the latest."""
    latest = (
        sa.select(refusals.c.digest)
        .where(refusals.c.device == device)
        .order_by(refusals.c.at_ms.desc(), refusals.c.digest)
        .limit(keep)
    )
    connection.execute(
        refusals.delete().where(refusals.c.device == device, refusals.c.digest.not_in(latest))
    )


def of_digest(connection: sa.Connection, digest: str) -> dict[str, StoredRefusal]:
    """Device -> its refusal of one release."""
    found = sa.select(refusals).where(refusals.c.digest == digest).order_by(refusals.c.device)
    rows = connection.execute(found).mappings()
    return {row["device"]: record(row, StoredRefusal) for row in rows}


def every(connection: sa.Connection) -> list[StoredRefusal]:
    """All refusals, newest first."""
    rows = connection.execute(sa.select(refusals).order_by(refusals.c.at_ms.desc())).mappings()
    return [record(row, StoredRefusal) for row in rows]


def latest(
    connection: sa.Connection, limit: int, after: tuple[int, str, str] | None = None
) -> list[StoredRefusal]:
    """Refusals, newest first; ``after`` is :func:`refusal_place`."""
    keys = (
        Key(refusals.c.at_ms, descending=True),
        Key(refusals.c.device),
        Key(refusals.c.digest),
    )
    query = keyset.part(sa.select(refusals), keys, after, limit)
    return [record(row, StoredRefusal) for row in connection.execute(query).mappings()]


def place(row: StoredRefusal) -> tuple[int, str, str]:
    """Where a refusal stands in the list of all."""
    return row.at_ms, row.device, row.digest
