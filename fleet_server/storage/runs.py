"""Queries on which device ran which release when."""

import sqlalchemy as sa

from fleet_server.storage.tables import runs
from fleet_server.storage.upsert import insert


def note(connection: sa.Connection, device: str, digest: str | None, at_ms: int) -> None:
    """Note that a device runs another release from now on, or none."""
    connection.execute(
        runs.update().where(runs.c.device == device, runs.c.to_ms.is_(None)).values(to_ms=at_ms)
    )
    if digest is not None:
        row = {"device": device, "from_ms": at_ms, "digest": digest}
        query = insert(connection, runs).values(row)
        connection.execute(
            query.on_conflict_do_update(
                index_elements=["device", "from_ms"], set_=row | {"to_ms": None}
            )
        )


def devices_at(connection: sa.Connection, at_ms: int) -> dict[str, int]:
    """Digest -> devices that ran it at a moment."""
    query = (
        sa.select(runs.c.digest, sa.func.count())
        .where(runs.c.from_ms <= at_ms, sa.or_(runs.c.to_ms.is_(None), runs.c.to_ms > at_ms))
        .group_by(runs.c.digest)
        .order_by(runs.c.digest)
    )
    return {digest: int(count) for digest, count in connection.execute(query)}


def forget(connection: sa.Connection, before_ms: int) -> None:
    """Drop what ended before."""
    connection.execute(runs.delete().where(runs.c.to_ms < before_ms))
