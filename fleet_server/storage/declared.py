"""Queries on declared consumers and what they have agreed to."""

import msgspec
import sqlalchemy as sa

from fleet_server.storage.rows import record
from fleet_server.storage.tables import acknowledgements, declared_consumers
from fleet_server.storage.upsert import insert


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """One consumer of one model."""

    model: str
    consumer: str
    owner: str
    note: str
    declared_ms: int
    declared_by: str


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True):
    """A MAJOR version that a consumer can read."""

    model: str
    consumer: str
    major: int
    note: str
    at_ms: int
    by: str


def every(connection: sa.Connection, model: str | None = None) -> list[Declared]:
    """Declared consumers, of one model or all."""
    table = declared_consumers
    query = sa.select(table).order_by(table.c.model, table.c.consumer)
    if model is not None:
        query = query.where(table.c.model == model)
    return [record(row, Declared) for row in connection.execute(query).mappings()]


def agreed(connection: sa.Connection, model: str | None = None) -> list[Acknowledged]:
    """What was agreed to, of one model or all."""
    table = acknowledgements
    query = sa.select(table).order_by(table.c.model, table.c.consumer, table.c.major)
    if model is not None:
        query = query.where(table.c.model == model)
    return [record(row, Acknowledged) for row in connection.execute(query).mappings()]


def declare(connection: sa.Connection, row: Declared) -> None:
    """Store a consumer, or change its owner and note."""
    connection.execute(
        insert(connection, declared_consumers)
        .values(msgspec.structs.asdict(row))
        .on_conflict_do_update(
            index_elements=["model", "consumer"], set_={"owner": row.owner, "note": row.note}
        )
    )


def withdraw(connection: sa.Connection, model: str, consumer: str) -> bool:
    """Forget a consumer and what it agreed to; whether there was one."""
    for table in (acknowledgements, declared_consumers):
        done = connection.execute(
            table.delete().where(table.c.model == model, table.c.consumer == consumer)
        )
    return bool(done.rowcount)


def acknowledge(connection: sa.Connection, row: Acknowledged) -> None:
    """Note what a consumer agrees to; the first word stays."""
    connection.execute(
        insert(connection, acknowledgements)
        .values(msgspec.structs.asdict(row))
        .on_conflict_do_nothing()
    )
