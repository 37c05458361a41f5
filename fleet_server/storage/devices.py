"""Queries on devices, their desired state, refusals and parity counts."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from fleet_server.storage import bulk, keyset
from fleet_server.storage.keyset import Key
from fleet_server.storage.rows import record
from fleet_server.storage.tables import (
    confirmations,
    desired,
    device_facts,
    devices,
    parity,
    parity_features,
    refusals,
    samples,
    unreplayed,
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


class StoredRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """A release that a device would not install."""

    device: str
    digest: str
    name: str
    reason: str
    at_ms: int


class ParityCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Sampled predictions whose features were computed again here."""

    device: str
    digest: str
    compared: int
    mismatches: int
    detail: str


_FACTS = ("site", "retired")
_DESIRED_COLUMNS = [desired.c[name] for name in Desired.__struct_fields__]
_DEVICE_NAMES = [
    *(name for name in Device.__struct_fields__ if name not in _FACTS),
    "site",
    "retired",
]
_DEVICE_COLUMNS = [
    *(devices.c[name] for name in Device.__struct_fields__ if name not in _FACTS),
    sa.func.coalesce(device_facts.c.site, "").label("site"),
    sa.func.coalesce(device_facts.c.retired, sa.false(), type_=sa.Boolean()).label("retired"),
]


def query() -> sa.Select[Any]:
    """All devices, with what operators say of them."""
    joined = devices.outerjoin(device_facts, device_facts.c.device == devices.c.device)
    return sa.select(*_DEVICE_COLUMNS).select_from(joined)


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
    for part in _parts(names):
        query = sa.select(devices.c.device).where(devices.c.device.in_(part))
        found.update(connection.execute(query).scalars())
    return found


def note_alive(connection: sa.Connection, names: Sequence[str], at_ms: int) -> None:
    """Note that known devices spoke at that time."""
    for part in _parts(names):
        query = devices.update().where(devices.c.device.in_(part)).values(last_seen_ms=at_ms)
        connection.execute(query)


def on_trial(connection: sa.Connection, names: Sequence[str], state: str) -> list[str]:
    """Those of some devices whose update is in a state."""
    found: list[str] = []
    for part in _parts(names):
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
        for part in _parts(names)
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


def desired_named(connection: sa.Connection, names: Sequence[str]) -> dict[str, Desired]:
    """Desired states of those of these devices that have one."""
    found = sa.select(*_DESIRED_COLUMNS)
    return {
        row[0]: _desired(row)
        for part in _parts(names)
        for row in connection.execute(found.where(desired.c.device.in_(part)))
    }


def reported(connection: sa.Connection, device: str) -> bytes | None:
    """The device's last ReportedState as JSON."""
    query = sa.select(devices.c.reported).where(devices.c.device == device)
    return connection.execute(query).scalar()


def reports(connection: sa.Connection, names: Sequence[str]) -> dict[str, bytes | None]:
    """The last ReportedState of each of these devices, as JSON."""
    query = sa.select(devices.c.device, devices.c.reported).where(devices.c.device.in_(names))
    return {row.device: row.reported for row in connection.execute(query)}


def desired_one(connection: sa.Connection, device: str) -> Desired | None:
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


def desired_of(connection: sa.Connection) -> dict[str, Desired]:
    """Desired state of every device that has one."""
    rows = connection.execute(sa.select(*_DESIRED_COLUMNS)).fetchall()
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
        sa.select(*_DESIRED_COLUMNS)
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


def set_desired(connection: sa.Connection, rows: Sequence[Desired]) -> None:
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


def add_refusal(connection: sa.Connection, row: StoredRefusal) -> bool:
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


def refusals_by(connection: sa.Connection, device: str) -> dict[str, int]:
    """Digest -> when one device refused it, by its own clock."""
    found = sa.select(refusals.c.digest, refusals.c.at_ms).where(refusals.c.device == device)
    return {row.digest: row.at_ms for row in connection.execute(found)}


def refusing(connection: sa.Connection, digest: str) -> int:
    """How many devices refuse a release."""
    count = sa.select(sa.func.count()).where(refusals.c.digest == digest)
    return int(connection.execute(count).scalar_one())


def forget_refusals(connection: sa.Connection, device: str, keep: int) -> None:
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


def refusals_of(connection: sa.Connection, digest: str) -> dict[str, StoredRefusal]:
    """Device -> its refusal of one release."""
    found = sa.select(refusals).where(refusals.c.digest == digest).order_by(refusals.c.device)
    rows = connection.execute(found).mappings()
    return {row["device"]: record(row, StoredRefusal) for row in rows}


def every_refusal(connection: sa.Connection) -> list[StoredRefusal]:
    """All refusals, newest first."""
    rows = connection.execute(sa.select(refusals).order_by(refusals.c.at_ms.desc())).mappings()
    return [record(row, StoredRefusal) for row in rows]


def latest_refusals(
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


def refusal_place(row: StoredRefusal) -> tuple[int, str, str]:
    """Where a refusal stands in the list of all."""
    return row.at_ms, row.device, row.digest


def new_sample(
    connection: sa.Connection, device: str, prediction: str, digest: str, keep: int
) -> bool:
    """Remember a sample, and only the last ``keep`` of the device; False where it is known."""
    newest = connection.execute(
        sa.select(sa.func.max(samples.c.number)).where(samples.c.device == device)
    ).scalar()
    number = (newest or 0) + 1
    done = connection.execute(
        insert(connection, samples)
        .values(device=device, prediction=prediction, digest=digest, number=number)
        .on_conflict_do_nothing()
    )
    if not done.rowcount:
        return False
    connection.execute(
        samples.delete().where(samples.c.device == device, samples.c.number <= number - keep)
    )
    return True


def add_parity(
    connection: sa.Connection, device: str, digest: str, mismatch: bool, detail: str
) -> None:
    """Count one sample that was computed again."""
    row = {
        "device": device,
        "digest": digest,
        "compared": 1,
        "mismatches": int(mismatch),
        "detail": detail,
    }
    update: dict[str, Any] = {
        "compared": parity.c.compared + 1,
        "mismatches": parity.c.mismatches + int(mismatch),
    }
    if mismatch:
        update["detail"] = detail
    connection.execute(
        insert(connection, parity)
        .values(row)
        .on_conflict_do_update(index_elements=["device", "digest"], set_=update)
    )


def add_unreplayed(connection: sa.Connection, device: str, digest: str) -> None:
    """Count one sample that cannot be computed again."""
    connection.execute(
        insert(connection, unreplayed)
        .values(device=device, digest=digest, samples=1)
        .on_conflict_do_update(
            index_elements=["device", "digest"], set_={"samples": unreplayed.c.samples + 1}
        )
    )


def not_replayed(connection: sa.Connection) -> dict[str, int]:
    """Digest -> samples that could not be computed again."""
    query = sa.select(unreplayed.c.digest, sa.func.sum(unreplayed.c.samples))
    rows = connection.execute(query.group_by(unreplayed.c.digest))
    return {digest: int(count) for digest, count in rows}


def add_mismatches(connection: sa.Connection, digest: str, features: Sequence[str]) -> None:
    """Count features of a release that one sample gave other values of."""
    if not features:
        return
    connection.execute(
        insert(connection, parity_features).on_conflict_do_update(
            index_elements=["digest", "feature"],
            set_={"mismatches": parity_features.c.mismatches + 1},
        ),
        [{"digest": digest, "feature": feature, "mismatches": 1} for feature in features],
    )


def mismatches(connection: sa.Connection) -> dict[str, dict[str, int]]:
    """Mismatches by release and feature, the most first."""
    order = (parity_features.c.mismatches.desc(), parity_features.c.feature)
    found: dict[str, dict[str, int]] = {}
    for row in connection.execute(sa.select(parity_features).order_by(*order)):
        found.setdefault(row.digest, {})[row.feature] = row.mismatches
    return found


def every_parity(connection: sa.Connection) -> list[ParityCounts]:
    """Parity counts of every device and release."""
    rows = connection.execute(sa.select(parity)).mappings()
    return [record(row, ParityCounts) for row in rows]


def _device(row: Sequence[Any]) -> Device:
    """A row of :func:`query`; made without checks, for there may be 100,000 of them."""
    return Device(**dict(zip(_DEVICE_NAMES, row, strict=True)))


def _desired(row: Sequence[Any]) -> Desired:
    return Desired(**dict(zip(Desired.__struct_fields__, row, strict=True)))


def _parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many at once as one statement takes."""
    return (names[start : start + MOST_NAMED] for start in range(0, len(names), MOST_NAMED))
