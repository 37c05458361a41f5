"""Queries on events, alerts and rejected messages."""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from fleet_server.storage import keyset
from fleet_server.storage.keyset import Key
from fleet_server.storage.rows import record
from fleet_server.storage.tables import alerts, events, rejected
from fleet_server.storage.upsert import insert

MOST_REJECTED_KINDS = 2000


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, in the order of ``event``."""

    event: int
    at_ms: int
    kind: str
    subject: str
    text: str
    detail: dict[str, Any] = {}


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a person should look at, until it is closed."""

    alert: int
    kind: str
    subject: str
    opened_ms: int
    closed_ms: int | None
    title: str
    detail: dict[str, Any]


class RejectedMessages(msgspec.Struct, frozen=True, kw_only=True):
    """How often a device sent something that was not taken in, and why."""

    device: str
    kind: str
    reason: str
    count: int
    first_ms: int
    last_ms: int
    detail: str


def add_event(
    connection: sa.Connection,
    at_ms: int,
    kind: str,
    subject: str,
    text: str,
    detail: dict[str, Any] | None = None,
) -> int:
    """Append to the log; returns its number."""
    query = (
        events.insert()
        .values(at_ms=at_ms, kind=kind, subject=subject, text=text, detail=detail or {})
        .returning(events.c.event)
    )
    return int(connection.execute(query).scalar_one())


def add_events(
    connection: sa.Connection, at_ms: int, kind: str, said: Sequence[tuple[str, str]]
) -> None:
    """Append one event for each (subject, text), in this order."""
    rows = [
        {"at_ms": at_ms, "kind": kind, "subject": subject, "text": text, "detail": {}}
        for subject, text in said
    ]
    if rows:
        connection.execute(events.insert(), rows)


def events_after(connection: sa.Connection, after: int, limit: int) -> list[Event]:
    """Events with a larger number than ``after``, oldest first."""
    query = sa.select(events).where(events.c.event > after).order_by(events.c.event).limit(limit)
    return [record(row, Event) for row in connection.execute(query).mappings()]


def latest_events(connection: sa.Connection, limit: int) -> list[Event]:
    """The newest events, newest first."""
    query = sa.select(events).order_by(events.c.event.desc()).limit(limit)
    return [record(row, Event) for row in connection.execute(query).mappings()]


def forget(connection: sa.Connection, before_ms: int) -> None:
    """Drop older events, and alerts that were closed before; numbers are not used again."""
    connection.execute(events.delete().where(events.c.at_ms < before_ms))
    connection.execute(alerts.delete().where(alerts.c.closed_ms < before_ms))


def open_alert(
    connection: sa.Connection,
    at_ms: int,
    kind: str,
    subject: str,
    title: str,
    detail: dict[str, Any],
) -> bool:
    """Open an alert, or bring the open one on the same subject up to date; whether it is new."""
    found = connection.execute(
        sa.select(alerts.c.alert).where(
            alerts.c.kind == kind, alerts.c.subject == subject, alerts.c.closed_ms.is_(None)
        )
    ).scalar()
    if found is None:
        connection.execute(
            alerts.insert().values(
                kind=kind, subject=subject, opened_ms=at_ms, title=title, detail=detail
            )
        )
        return True
    connection.execute(
        alerts.update().where(alerts.c.alert == found).values(title=title, detail=detail)
    )
    return False


def close_alert(connection: sa.Connection, at_ms: int, kind: str, subject: str) -> bool:
    """Close the open alert on a subject; whether there was one."""
    done = connection.execute(
        alerts.update()
        .where(alerts.c.kind == kind, alerts.c.subject == subject, alerts.c.closed_ms.is_(None))
        .values(closed_ms=at_ms)
    )
    return bool(done.rowcount)


def all_alerts(
    connection: sa.Connection,
    limit: int,
    after: tuple[int, int] | None = None,
    *,
    kind: str | None = None,
) -> list[Alert]:
    """Open alerts first, then the newest closed ones; ``after`` is :func:`alert_place`."""
    closed = sa.case((alerts.c.closed_ms.is_(None), 0), else_=1)
    keys = (Key(closed), Key(alerts.c.alert, descending=True))
    every = sa.select(alerts)
    if kind is not None:
        every = every.where(alerts.c.kind == kind)
    query = keyset.part(every, keys, after, limit)
    return [record(row, Alert) for row in connection.execute(query).mappings()]


def alert_place(alert: Alert) -> tuple[int, int]:
    """Where an alert stands in the list of all."""
    return int(alert.closed_ms is not None), alert.alert


def alert_kinds(connection: sa.Connection) -> dict[str, int]:
    """Every kind that is remembered -> open alerts of it."""
    opened = sa.func.count().filter(alerts.c.closed_ms.is_(None))
    query = sa.select(alerts.c.kind, opened).group_by(alerts.c.kind).order_by(alerts.c.kind)
    return {kind: int(count) for kind, count in connection.execute(query)}


def open_count(connection: sa.Connection) -> int:
    """How many alerts are open."""
    query = sa.select(sa.func.count()).select_from(alerts).where(alerts.c.closed_ms.is_(None))
    return int(connection.execute(query).scalar_one())


def open_alerts(connection: sa.Connection, kind: str) -> list[Alert]:
    """Open alerts of one kind."""
    query = sa.select(alerts).where(alerts.c.kind == kind, alerts.c.closed_ms.is_(None))
    return [record(row, Alert) for row in connection.execute(query).mappings()]


def reject(
    connection: sa.Connection, at_ms: int, device: str, kind: str, reason: str, detail: str
) -> None:
    """Count one message that was not taken in. Names beyond the limit share one row."""
    known = connection.execute(
        sa.select(rejected.c.count).where(
            rejected.c.device == device, rejected.c.kind == kind, rejected.c.reason == reason
        )
    ).scalar()
    if known is None:
        rows = connection.execute(sa.select(sa.func.count()).select_from(rejected)).scalar_one()
        if rows >= MOST_REJECTED_KINDS:
            device, kind = "(others)", "any"
    row = {
        "device": device[:64],
        "kind": kind[:16],
        "reason": reason[:128],
        "count": 1,
        "first_ms": at_ms,
        "last_ms": at_ms,
        "detail": detail[:500],
    }
    connection.execute(
        insert(connection, rejected)
        .values(row)
        .on_conflict_do_update(
            index_elements=["device", "kind", "reason"],
            set_={
                "count": rejected.c.count + 1,
                "last_ms": at_ms,
                "detail": row["detail"],
            },
        )
    )


def rejections(
    connection: sa.Connection, limit: int, after: tuple[int, str, str, str] | None = None
) -> list[RejectedMessages]:
    """What was not taken in, latest first; ``after`` is :func:`rejection_place`."""
    columns = (rejected.c.device, rejected.c.kind, rejected.c.reason)
    keys = (Key(rejected.c.last_ms, descending=True), *map(Key, columns))
    query = keyset.part(sa.select(rejected), keys, after, limit)
    return [record(row, RejectedMessages) for row in connection.execute(query).mappings()]


def rejection_place(row: RejectedMessages) -> tuple[int, str, str, str]:
    """Where they stand in the list of all."""
    return row.last_ms, row.device, row.kind, row.reason


def rejected_count(connection: sa.Connection) -> int:
    """How many messages were not taken in."""
    return int(connection.execute(sa.select(sa.func.sum(rejected.c.count))).scalar() or 0)
