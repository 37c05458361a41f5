"""Queries on the certificates of devices."""

from typing import Any

import msgspec
import sqlalchemy as sa

from fleet_server.storage import keyset
from fleet_server.storage.keyset import Key
from fleet_server.storage.rows import record
from fleet_server.storage.tables import certificates


class StoredCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate that was made for a device."""

    serial: str
    device: str
    key: str
    """sha256 of the certified key (SubjectPublicKeyInfo, DER)."""
    holder: str
    """Public key (PEM) that may have it renewed."""
    hardware: bool
    """Whether that is another key than the certified one."""
    token: str
    pem: str
    issued_ms: int
    not_before_ms: int
    not_after_ms: int
    revoked_ms: int | None = None
    revoked_by: str | None = None
    reason: str = ""


def add(connection: sa.Connection, certificate: StoredCertificate) -> None:
    """Store a certificate that was made."""
    connection.execute(certificates.insert().values(msgspec.structs.asdict(certificate)))


def find(connection: sa.Connection, serial: str) -> StoredCertificate | None:
    """The certificate of a serial number."""
    query = sa.select(certificates).where(certificates.c.serial == serial)
    row = connection.execute(query).mappings().first()
    return None if row is None else record(row, StoredCertificate)


def of_device(connection: sa.Connection, device: str) -> list[StoredCertificate]:
    """A device's certificates, newest first."""
    query = (
        sa.select(certificates)
        .where(certificates.c.device == device)
        .order_by(certificates.c.issued_ms.desc(), certificates.c.serial)
    )
    return [record(row, StoredCertificate) for row in connection.execute(query).mappings()]


def of_key(connection: sa.Connection, key: str) -> list[StoredCertificate]:
    """Every certificate of a key, newest first."""
    query = (
        sa.select(certificates)
        .where(certificates.c.key == key)
        .order_by(certificates.c.issued_ms.desc(), certificates.c.serial)
    )
    return [record(row, StoredCertificate) for row in connection.execute(query).mappings()]


def page(
    connection: sa.Connection,
    limit: int,
    after: tuple[int, str] | None = None,
    *,
    device: str | None = None,
) -> list[StoredCertificate]:
    """Certificates, newest first; ``after`` is (issued_ms, serial)."""
    query = sa.select(certificates)
    if device is not None:
        query = query.where(certificates.c.device == device)
    keys = (Key(certificates.c.issued_ms, descending=True), Key(certificates.c.serial))
    found = connection.execute(keyset.part(query, keys, after, limit)).mappings()
    return [record(row, StoredCertificate) for row in found]


def revoke(connection: sa.Connection, serial: str, now_ms: int, by: str, reason: str) -> None:
    """Mark a certificate as revoked."""
    connection.execute(
        certificates.update()
        .where(certificates.c.serial == serial, certificates.c.revoked_ms.is_(None))
        .values(revoked_ms=now_ms, revoked_by=by, reason=reason)
    )


def revoked_serials(connection: sa.Connection, now_ms: int) -> set[str]:
    """Serials of what is revoked and would still be valid."""
    query = sa.select(certificates.c.serial).where(_revoked(now_ms))
    return set(connection.execute(query).scalars())


def revoked(connection: sa.Connection, now_ms: int) -> list[tuple[str, int, str]]:
    """(serial, revoked_ms, pem) of what is revoked and would still be valid, by serial."""
    c = certificates.c
    query = sa.select(c.serial, c.revoked_ms, c.pem).where(_revoked(now_ms)).order_by(c.serial)
    return [(row.serial, row.revoked_ms, row.pem) for row in connection.execute(query)]


def _revoked(now_ms: int) -> sa.ColumnElement[bool]:
    c = certificates.c
    return sa.and_(c.revoked_ms.is_not(None), c.not_after_ms >= now_ms)


def valid(connection: sa.Connection, now_ms: int) -> list[tuple[str, int, str]]:
    """(device, issued_ms, pem) of what is valid, by device, each one's newest first."""
    c = certificates.c
    query = (
        sa.select(c.device, c.issued_ms, c.pem)
        .where(c.revoked_ms.is_(None), c.not_after_ms > now_ms)
        .order_by(c.device, c.issued_ms.desc(), c.serial)
    )
    return [(row.device, row.issued_ms, row.pem) for row in connection.execute(query)]


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A device whose connection may rest on a certificate that is valid no more."""

    device: str
    at_ms: int
    """When the latest of them ended."""
    replaced: bool
    """Whether it has another that is valid."""


def ended(connection: sa.Connection, since_ms: int, now_ms: int) -> list[Ended]:
    """Devices of which a certificate was revoked since a moment, or the last one expired."""
    c = certificates.c
    at_ms = sa.func.max(sa.func.coalesce(c.revoked_ms, c.not_after_ms))
    revoked = sa.func.max(sa.func.coalesce(c.revoked_ms, 0))
    lost = (
        sa.select(c.device, at_ms.label("at_ms"), revoked.label("revoked_ms"))
        .where(sa.or_(c.revoked_ms >= since_ms, c.not_after_ms.between(since_ms, now_ms)))
        .group_by(c.device)
        .order_by(c.device)
    )
    valid = sa.select(c.device).where(c.revoked_ms.is_(None), c.not_after_ms > now_ms)
    holding = set(connection.execute(valid.where(c.device.in_(_names(lost)))).scalars())
    return [
        Ended(device=row.device, at_ms=row.at_ms, replaced=row.device in holding)
        for row in connection.execute(lost)
        if row.revoked_ms or row.device not in holding
    ]


def _names(query: sa.Select[Any]) -> sa.Select[Any]:
    return sa.select(query.subquery().c.device)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How many devices hold what."""

    valid: int = 0
    """With a certificate that lasts."""
    ending: int = 0
    """With one that ends soon."""
    lapsed: int = 0
    """Whose last certificate has expired."""
    revoked: int = 0
    """Whose certificates were all revoked."""


def standing(connection: sa.Connection, now_ms: int, soon_ms: int) -> Standing:
    """Count devices by what they hold; ``soon_ms`` is a moment."""
    c = certificates.c
    end = sa.func.max(c.not_after_ms).filter(c.revoked_ms.is_(None))
    ends = sa.select(end.label("end_ms")).group_by(c.device).subquery().c.end_ms
    state = sa.case(
        (ends.is_(None), "revoked"),
        (ends <= now_ms, "lapsed"),
        (ends <= soon_ms, "ending"),
        else_="valid",
    )
    states = sa.select(state.label("state")).subquery().c.state
    rows = connection.execute(sa.select(states, sa.func.count()).group_by(states))
    return Standing(**{row[0]: row[1] for row in rows})


def forget(connection: sa.Connection, before_ms: int) -> None:
    """Drop certificates that ended before a moment, but each device's newest.

    That one says that the name is taken, and by which key.
    """
    c, newer = certificates.c, certificates.alias()
    later = sa.and_(newer.c.device == c.device, newer.c.issued_ms > c.issued_ms)
    connection.execute(
        certificates.delete().where(
            c.not_after_ms < before_ms, sa.exists().where(later).correlate(certificates)
        )
    )
