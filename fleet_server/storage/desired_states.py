"""Queries on what devices should run, and whether they have heard of it."""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from fleet_server.storage import bulk
from fleet_server.storage.devices import parts_of
from fleet_server.storage.rows import record
from fleet_server.storage.tables import (
    confirmations,
    desired,
    devices,
)
from fleet_server.storage.upsert import insert


class Desired(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a device should run; releases by digest."""

    device: str
    revision: int
    issued_ms: int
    active: str | None
    shadow: str | None
    arm: str
    rollout: str | None
    sent_ms: int | None
    confirmed_sent: bool
    attempts: int = 1
    """How often the device was asked for this."""


_COLUMNS = [desired.c[name] for name in Desired.__struct_fields__]


def named(connection: sa.Connection, names: Sequence[str]) -> dict[str, Desired]:
    """Desired states of those of these devices that have one."""
    found = sa.select(*_COLUMNS)
    return {
        row[0]: _desired(row)
        for part in parts_of(names)
        for row in connection.execute(found.where(desired.c.device.in_(part)))
    }


def one(connection: sa.Connection, device: str) -> Desired | None:
    """Desired state of one device; none where it has none."""
    query = sa.select(desired).where(desired.c.device == device)
    row = connection.execute(query).mappings().first()
    return None if row is None else record(row, Desired)


def confirm(connection: sa.Connection, device: str, revision: int, at_ms: int) -> bool:
    """Note that a device's trial is confirmed, and send the desired state again; whether new."""
    values = {"device": device, "revision": revision, "at_ms": at_ms}
    done = connection.execute(
        insert(connection, confirmations)
        .values(values)
        .on_conflict_do_update(
            index_elements=["device"],
            set_=values,
            where=confirmations.c.revision != revision,
        )
    )
    if done.rowcount:
        connection.execute(
            desired.update()
            .where(desired.c.device == device, desired.c.revision == revision)
            .values(confirmed_sent=False, sent_ms=None)
        )
    return bool(done.rowcount)


def confirmed(connection: sa.Connection, names: Sequence[str]) -> dict[str, int]:
    """Revision of each of these devices' desired state whose trial was confirmed last."""
    found = sa.select(confirmations.c.device, confirmations.c.revision).where(
        confirmations.c.device.in_(names)
    )
    return {row.device: row.revision for row in connection.execute(found)}


def every(connection: sa.Connection) -> dict[str, Desired]:
    """Desired state of every device that has one."""
    rows = connection.execute(sa.select(*_COLUMNS)).fetchall()
    return {row[0]: _desired(row) for row in rows}


def due(
    connection: sa.Connection, resend_before_ms: int, republish_before_ms: int, limit: int
) -> list[Desired]:
    """Desired states to send, those that wait longest first.

    Those that were never sent, that the broker did not confirm since ``resend_before_ms``, and
    that their device did not answer since ``republish_before_ms``; one that is on probation
    though its trial was confirmed has not heard so.
    """
    joined = desired.outerjoin(devices, devices.c.device == desired.c.device).outerjoin(
        confirmations, confirmations.c.device == desired.c.device
    )
    answered = sa.func.coalesce(devices.c.desired_revision, -1) == desired.c.revision
    unheard = sa.and_(
        sa.func.coalesce(confirmations.c.revision, -1) == desired.c.revision,
        sa.func.coalesce(devices.c.update_state, "") == "probation",
    )
    found = (
        sa.select(*_COLUMNS)
        .select_from(joined)
        .where(
            sa.or_(
                desired.c.sent_ms.is_(None),
                sa.and_(
                    desired.c.confirmed_sent.is_(sa.false()),
                    desired.c.sent_ms < resend_before_ms,
                ),
                sa.and_(
                    desired.c.confirmed_sent.is_(sa.true()),
                    desired.c.sent_ms < republish_before_ms,
                    sa.or_(unheard, sa.not_(answered)),
                ),
            )
        )
        .order_by(sa.func.coalesce(desired.c.sent_ms, -1), desired.c.device)
        .limit(limit)
    )
    return [_desired(row) for row in connection.execute(found)]


def put(connection: sa.Connection, rows: Sequence[Desired]) -> None:
    """Insert or replace devices' desired states."""
    if not rows:
        return
    bulk.put(connection, desired, [msgspec.structs.asdict(row) for row in rows])


def note_sent(connection: sa.Connection, sent: Sequence[tuple[str, int]], at_ms: int) -> None:
    """Note (device, revision) pairs that were handed to the broker."""
    _note(connection, sent, sent_ms=at_ms)


def note_delivered(connection: sa.Connection, delivered: Sequence[tuple[str, int]]) -> None:
    """Note (device, revision) pairs that the broker confirmed that it holds."""
    _note(connection, delivered, confirmed_sent=True)


def _note(connection: sa.Connection, pairs: Sequence[tuple[str, int]], **values: Any) -> None:
    rows = [{"device": device, "revision": revision, **values} for device, revision in pairs]
    bulk.update(connection, desired, ("device", "revision"), rows)


def forget_deliveries(connection: sa.Connection) -> None:
    """Note that the broker holds nothing any more."""
    connection.execute(desired.update().values(confirmed_sent=False, sent_ms=None))


def _desired(row: Sequence[Any]) -> Desired:
    return Desired(**dict(zip(Desired.__struct_fields__, row, strict=True)))
