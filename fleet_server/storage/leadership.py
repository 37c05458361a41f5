"""Queries on which process decides, and the number that rises with every change of it."""

from typing import NamedTuple

import sqlalchemy as sa

from edge_core.errors import SerinusError
from fleet_server.storage.tables import leadership
from fleet_server.storage.upsert import insert

ONE = 1


class NotLeading(SerinusError):
    """Another process has taken over: what this one has in mind must not be written."""


class Leader(NamedTuple):
    """Who leads, and when it was last heard of by the database's clock."""

    epoch: int
    holder: str
    since_ms: int
    renewed_ms: int


def present(connection: sa.Connection) -> Leader | None:
    """Who leads; none where nobody ever did."""
    row = connection.execute(sa.select(leadership).where(leadership.c.one == ONE)).first()
    return None if row is None else Leader(row.epoch, row.holder, row.since_ms, row.renewed_ms)


def take_over(connection: sa.Connection, holder: str, now_ms: int) -> int:
    """Lead from now on; returns the new epoch."""
    before = present(connection)
    values = {
        "epoch": before.epoch + 1 if before else 1,
        "holder": holder,
        "since_ms": now_ms,
        "renewed_ms": now_ms,
    }
    connection.execute(
        insert(connection, leadership)
        .values(one=ONE, **values)
        .on_conflict_do_update(index_elements=["one"], set_=values)
    )
    return int(str(values["epoch"]))


def renew(connection: sa.Connection, now_ms: int) -> None:
    """Say that the leader, whose epoch was checked, is alive."""
    connection.execute(leadership.update().values(renewed_ms=now_ms))


def check(connection: sa.Connection, epoch: int) -> None:
    """Raise :class:`NotLeading` where another has taken over since."""
    found = present(connection)
    if found is None or found.epoch != epoch:
        now = "nobody" if found is None else found.holder
        raise NotLeading(f"{now} decides now; nothing of what was decided here is stored")


def now_ms(connection: sa.Connection, clock_ms: int) -> int:
    """Time by the one clock that all processes share: the server's; SQLite has one process."""
    if connection.dialect.name != "postgresql":
        return clock_ms
    return round(
        connection.execute(
            sa.select(sa.func.extract("epoch", sa.func.clock_timestamp()) * 1000)
        ).scalar_one()
    )
