"""Queries on devices."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from fleet_server.storage.tables import (
    desired,
    device_facts,
    devices,
)
from fleet_server.storage.upsert import insert

MOST_NAMED = 10_000
"""Names in one statement; SQLite takes 32,766 values."""


class Device(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a device said last; releases by digest."""

    device: str
    target: str | None
    runtime: str
    slices: dict[str, str]
    online: bool
    first_seen_ms: int
    last_seen_ms: int
    active: str | None
    active_since_ms: int | None
    shadow: str | None
    update_state: str | None
    reason: str
    desired_revision: int
    trouble: str = ""
    """The first of what stands wrong with the device itself; empty where nothing does."""
    site: str = ""
    retired: bool = False
    """Operators do not count on it any more."""


_FACTS = ("site", "retired")
_NAMES = [
    *(name for name in Device.__struct_fields__ if name not in _FACTS),
    "site",
    "retired",
]
_COLUMNS = [
    *(devices.c[name] for name in Device.__struct_fields__ if name not in _FACTS),
    sa.func.coalesce(device_facts.c.site, "").label("site"),
    sa.func.coalesce(device_facts.c.retired, sa.false(), type_=sa.Boolean()).label("retired"),
]


def query() -> sa.Select[Any]:
    """All devices, with what operators say of them."""
    joined = devices.outerjoin(device_facts, device_facts.c.device == devices.c.device)
    return sa.select(*_COLUMNS).select_from(joined)


def seen(connection: sa.Connection, device: str, at_ms: int, *, alive: bool) -> bool:
    """Note a device; whether it is new. ``alive`` when it spoke at that time itself."""
    row = {"device": device, "first_seen_ms": at_ms, "last_seen_ms": at_ms}
    done = connection.execute(insert(connection, devices).values(row).on_conflict_do_nothing())
    if done.rowcount:
        return True
    if alive:
        change(connection, device, last_seen_ms=at_ms)
    return False


def known(connection: sa.Connection, names: Sequence[str]) -> set[str]:
    """Those of some devices that were seen before."""
    found: set[str] = set()
    for part in parts_of(names):
        query = sa.select(devices.c.device).where(devices.c.device.in_(part))
        found.update(connection.execute(query).scalars())
    return found


def note_alive(connection: sa.Connection, names: Sequence[str], at_ms: int) -> None:
    """Note that known devices spoke at that time."""
    for part in parts_of(names):
        query = devices.update().where(devices.c.device.in_(part)).values(last_seen_ms=at_ms)
        connection.execute(query)


def on_trial(connection: sa.Connection, names: Sequence[str], state: str) -> list[str]:
    """Those of some devices whose update is in a state."""
    found: list[str] = []
    for part in parts_of(names):
        query = sa.select(devices.c.device).where(
            devices.c.device.in_(part), devices.c.update_state == state
        )
        found.extend(connection.execute(query).scalars())
    return sorted(found)


def change(connection: sa.Connection, device: str, **values: Any) -> None:
    """Set columns of a known device."""
    connection.execute(devices.update().where(devices.c.device == device).values(**values))


def one(connection: sa.Connection, device: str) -> Device | None:
    """One device; none where it was never seen."""
    row = connection.execute(query().where(devices.c.device == device)).first()
    return None if row is None else _device(row)


def every(connection: sa.Connection) -> list[Device]:
    """All devices by name."""
    found = connection.execute(query().order_by(devices.c.device)).fetchall()
    return [_device(row) for row in found]


def page(
    connection: sa.Connection,
    wanted: sa.ColumnElement[bool] | None,
    after: str | None,
    limit: int,
) -> list[Device]:
    """So many devices by name, after one of them."""
    found = query().order_by(devices.c.device).limit(limit)
    if wanted is not None:
        found = found.where(wanted)
    if after is not None:
        found = found.where(devices.c.device > after)
    return [_device(row) for row in connection.execute(found)]


def named(connection: sa.Connection, names: Sequence[str]) -> list[Device]:
    """Those of these names that are devices, in order."""
    found = [
        _device(row)
        for part in parts_of(names)
        for row in connection.execute(query().where(devices.c.device.in_(part)))
    ]
    return sorted(found, key=lambda device: device.device)


def failed_outside(connection: sa.Connection) -> list[str]:
    """Devices that failed at an order of no running rollout, in order."""
    found = (
        sa.select(devices.c.device)
        .join(desired, desired.c.device == devices.c.device)
        .where(
            devices.c.update_state == "failed",
            desired.c.rollout.is_(None),
            desired.c.revision == devices.c.desired_revision,
        )
        .order_by(devices.c.device)
    )
    return list(connection.execute(found).scalars())


def reported(connection: sa.Connection, device: str) -> bytes | None:
    """The device's last ReportedState as JSON."""
    query = sa.select(devices.c.reported).where(devices.c.device == device)
    return connection.execute(query).scalar()


def reports(connection: sa.Connection, names: Sequence[str]) -> dict[str, bytes | None]:
    """The last ReportedState of each of these devices, as JSON."""
    query = sa.select(devices.c.device, devices.c.reported).where(devices.c.device.in_(names))
    return {row.device: row.reported for row in connection.execute(query)}


def _device(row: Sequence[Any]) -> Device:
    """A row of :func:`query`; made without checks, for there may be 100,000 of them."""
    return Device(**dict(zip(_NAMES, row, strict=True)))


def parts_of(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many at once as one statement takes."""
    return (names[start : start + MOST_NAMED] for start in range(0, len(names), MOST_NAMED))
