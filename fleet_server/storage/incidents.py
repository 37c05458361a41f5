"""Queries on incidents and their timelines."""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from fleet_server.storage import keyset
from fleet_server.storage.keyset import Key
from fleet_server.storage.rows import record
from fleet_server.storage.tables import alerts, cursors, events, incident_entries, incidents
from fleet_server.storage.upsert import insert


class StoredIncident(msgspec.Struct, frozen=True, kw_only=True):
    """One incident."""

    incident: int
    kind: str
    model: str
    subject: str
    title: str
    state: str
    opened_ms: int
    began_ms: int
    mitigated_ms: int | None = None
    resolved_ms: int | None = None
    resolved_by: str | None = None
    owner: str | None = None
    cause: str = ""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a timeline."""

    at_ms: int
    source: str
    kind: str
    subject: str
    text: str
    detail: dict[str, Any] = {}


def add(connection: sa.Connection, row: StoredIncident) -> int:
    """Store a new incident; returns its number."""
    values = msgspec.structs.asdict(row)
    del values["incident"]
    query = incidents.insert().values(values).returning(incidents.c.incident)
    return int(connection.execute(query).scalar_one())


def change(connection: sa.Connection, number: int, **values: Any) -> None:
    """Set columns of an incident."""
    connection.execute(incidents.update().where(incidents.c.incident == number).values(**values))


def one(connection: sa.Connection, number: int) -> StoredIncident | None:
    """One incident; none where there is none."""
    query = sa.select(incidents).where(incidents.c.incident == number)
    row = connection.execute(query).mappings().first()
    return None if row is None else record(row, StoredIncident)


def latest(
    connection: sa.Connection, limit: int, after: tuple[int, int] | None = None
) -> list[StoredIncident]:
    """Those that are not resolved first, then the newest; ``after`` is :func:`place`."""
    resolved = sa.case((incidents.c.state == "resolved", 1), else_=0)
    keys = (Key(resolved), Key(incidents.c.incident, descending=True))
    query = keyset.part(sa.select(incidents), keys, after, limit)
    return [record(row, StoredIncident) for row in connection.execute(query).mappings()]


def place(row: StoredIncident) -> tuple[int, int]:
    """Where an incident stands in the list of all."""
    return int(row.state == "resolved"), row.incident


def counts(connection: sa.Connection) -> dict[str, int]:
    """State -> incidents."""
    query = sa.select(incidents.c.state, sa.func.count()).group_by(incidents.c.state)
    return {state: int(count) for state, count in connection.execute(query)}


def unresolved(connection: sa.Connection) -> list[StoredIncident]:
    """Incidents that nobody has resolved, oldest first."""
    query = sa.select(incidents).where(incidents.c.state != "resolved")
    rows = connection.execute(query.order_by(incidents.c.incident)).mappings()
    return [record(row, StoredIncident) for row in rows]


def has_one(connection: sa.Connection, kind: str, subject: str, since_ms: int) -> bool:
    """Whether an incident of a cause was opened since a moment, resolved or not."""
    query = sa.select(incidents.c.incident).where(
        incidents.c.kind == kind,
        incidents.c.subject == subject,
        incidents.c.opened_ms >= since_ms,
    )
    return connection.execute(query.limit(1)).first() is not None


def note(connection: sa.Connection, number: int, found: Sequence[Entry]) -> None:
    """Append lines to a timeline."""
    if not found:
        return
    last = connection.execute(
        sa.select(sa.func.max(incident_entries.c.place)).where(
            incident_entries.c.incident == number
        )
    ).scalar()
    rows = [
        {"incident": number, "place": (last or 0) + place, **msgspec.structs.asdict(entry)}
        for place, entry in enumerate(found, 1)
    ]
    connection.execute(incident_entries.insert(), rows)


def timeline(connection: sa.Connection, number: int) -> list[Entry]:
    """Lines in the order in which they happened."""
    query = (
        sa.select(*(incident_entries.c[name] for name in Entry.__struct_fields__))
        .where(incident_entries.c.incident == number)
        .order_by(incident_entries.c.at_ms, incident_entries.c.place)
    )
    return [record(row, Entry) for row in connection.execute(query).mappings()]


def cursor(connection: sa.Connection, reader: str) -> int:
    """Up to which event a reader has come; 0 at first."""
    query = sa.select(cursors.c.last).where(cursors.c.reader == reader)
    return int(connection.execute(query).scalar() or 0)


def move_cursor(connection: sa.Connection, reader: str, last: int) -> None:
    """Note how far a reader has come."""
    query = insert(connection, cursors).values(reader=reader, last=last)
    connection.execute(query.on_conflict_do_update(index_elements=["reader"], set_={"last": last}))


def events_between(connection: sa.Connection, from_ms: int, before: int) -> list[Entry]:
    """Events since a moment whose number is not larger than ``before``, oldest first."""
    query = (
        sa.select(events)
        .where(events.c.at_ms >= from_ms, events.c.event <= before)
        .order_by(events.c.event)
    )
    return [
        Entry(
            at_ms=row["at_ms"], source="event", kind=row["kind"], subject=row["subject"],
            text=row["text"], detail=row["detail"],
        )
        for row in connection.execute(query).mappings()
    ]  # fmt: skip


def open_alert_subjects(connection: sa.Connection) -> set[tuple[str, str]]:
    """(kind, subject) of every open alert."""
    query = sa.select(alerts.c.kind, alerts.c.subject).where(alerts.c.closed_ms.is_(None))
    return {(kind, subject) for kind, subject in connection.execute(query)}
