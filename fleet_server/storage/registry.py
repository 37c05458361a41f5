"""Queries on what operators say of devices, and on groups."""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from fleet_server.domain.query import Term
from fleet_server.storage import device_query
from fleet_server.storage import devices as device_rows
from fleet_server.storage.rows import record
from fleet_server.storage.tables import device_facts, device_tags, devices, groups
from fleet_server.storage.upsert import insert


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A saved query."""

    name: str
    query: str
    set_ms: int
    set_by: str


def set_facts(
    connection: sa.Connection, names: Sequence[str], values: dict[str, object], at_ms: int, by: str
) -> None:
    """Set ``site`` or ``retired`` of devices; what is not named stays."""
    stamp = {"set_ms": at_ms, "set_by": by}
    rows = [{"device": n, "site": "", "retired": False, **stamp, **values} for n in names]
    if rows:
        query = insert(connection, device_facts)
        connection.execute(
            query.on_conflict_do_update(
                index_elements=["device"],
                set_={name: query.excluded[name] for name in (*values, *stamp)},
            ),
            rows,
        )


def add_tags(connection: sa.Connection, names: Sequence[str], tags: Sequence[str]) -> None:
    """Give devices tags that they may have already."""
    rows = [{"device": name, "tag": tag} for name in names for tag in tags]
    if rows:
        connection.execute(insert(connection, device_tags).on_conflict_do_nothing(), rows)


def remove_tags(connection: sa.Connection, names: Sequence[str], tags: Sequence[str]) -> None:
    """Take tags from devices."""
    connection.execute(
        device_tags.delete().where(device_tags.c.device.in_(names), device_tags.c.tag.in_(tags))
    )


def tags_of(connection: sa.Connection, names: Sequence[str]) -> dict[str, list[str]]:
    """Tags of each of these devices, in order."""
    query = sa.select(device_tags).where(device_tags.c.device.in_(names))
    found: dict[str, list[str]] = {name: [] for name in names}
    for row in connection.execute(query.order_by(device_tags.c.device, device_tags.c.tag)):
        found[row.device].append(row.tag)
    return found


def most_tags(connection: sa.Connection, names: Sequence[str]) -> int:
    """The largest number of tags that one of these devices has."""
    counts = (
        sa.select(sa.func.count().label("count"))
        .where(device_tags.c.device.in_(names))
        .group_by(device_tags.c.device)
        .subquery()
    )
    return int(connection.execute(sa.select(sa.func.max(counts.c["count"]))).scalar() or 0)


def names_that_fit(connection: sa.Connection, terms: tuple[Term, ...], now_ms: int) -> list[str]:
    """Names of the devices that a query means, in order."""
    wanted = device_query.condition(terms, now_ms, connection.dialect.name)
    fitting = device_rows.query().where(wanted).subquery()
    query = sa.select(fitting.c.device).order_by(fitting.c.device)
    return list(connection.execute(query).scalars())


def known(connection: sa.Connection, names: Sequence[str]) -> set[str]:
    """Those of these names that are devices."""
    query = sa.select(devices.c.device).where(devices.c.device.in_(names))
    return set(connection.execute(query).scalars())


def group(connection: sa.Connection, name: str) -> Group | None:
    """A saved query; none where there is none."""
    row = connection.execute(sa.select(groups).where(groups.c.name == name)).mappings().first()
    return None if row is None else record(row, Group)


def every_group(connection: sa.Connection) -> list[Group]:
    """All saved queries, by name."""
    rows = connection.execute(sa.select(groups).order_by(groups.c.name)).mappings()
    return [record(row, Group) for row in rows]


def put_group(connection: sa.Connection, row: Group) -> None:
    """Insert or replace a saved query."""
    values = msgspec.structs.asdict(row)
    query = insert(connection, groups).values(values)
    connection.execute(query.on_conflict_do_update(index_elements=["name"], set_=values))


def drop_group(connection: sa.Connection, name: str) -> bool:
    """Remove a saved query; whether there was one."""
    return bool(connection.execute(groups.delete().where(groups.c.name == name)).rowcount)
