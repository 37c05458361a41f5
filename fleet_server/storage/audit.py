"""The log of decisions: appended only, each entry hashed together with the one before it."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import sqlalchemy as sa

from fleet_server.storage.rows import record as record_of
from fleet_server.storage.tables import audit

START = "0" * 64
"""What the first entry follows."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One decision."""

    entry: int
    at_ms: int
    actor: str
    role: str
    """``viewer``, ``operator``, ``approver``, ``ci``, or ``server`` for the server's own."""
    action: str
    subject: str
    detail: str
    """Canonical JSON."""
    previous: str
    hash: str


def record(
    connection: sa.Connection,
    *,
    at_ms: int,
    actor: str,
    role: str,
    action: str,
    subject: str,
    detail: dict[str, Any] | None = None,
) -> int:
    """Append a decision in the transaction that carries it out; returns the entry's number."""
    last = connection.execute(
        sa.select(audit.c.entry, audit.c.hash).order_by(audit.c.entry.desc()).limit(1)
    ).first()
    number, previous = (last.entry + 1, last.hash) if last else (1, START)
    text = json.dumps(detail or {}, sort_keys=True, separators=(",", ":"))
    entry = Entry(
        entry=number,
        at_ms=at_ms,
        actor=actor,
        role=role,
        action=action,
        subject=subject,
        detail=text,
        previous=previous,
        hash="",
    )
    values = msgspec.structs.asdict(entry) | {"hash": digest(entry)}
    connection.execute(audit.insert().values(values))
    return number


def note(
    connection: sa.Connection,
    at_ms: int,
    by: tuple[str, str],
    action: str,
    subject: str,
    detail: dict[str, Any],
) -> None:
    """As :func:`record`; ``by`` is name and role."""
    actor, role = by
    record(
        connection,
        at_ms=at_ms,
        actor=actor,
        role=role,
        action=action,
        subject=subject,
        detail=detail,
    )


def digest(entry: Entry) -> str:
    """What an entry's hash has to be: of everything in it but the hash, ``previous`` included."""
    fields = msgspec.structs.asdict(entry)
    del fields["hash"]
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def after(
    connection: sa.Connection,
    entry: int,
    limit: int,
    *,
    subject: str | None = None,
    actor: str | None = None,
) -> list[Entry]:
    """Entries with a larger number, oldest first; of one subject or actor where named."""
    query = sa.select(audit).where(audit.c.entry > entry).order_by(audit.c.entry).limit(limit)
    if subject is not None:
        query = query.where(audit.c.subject == subject)
    if actor is not None:
        query = query.where(audit.c.actor == actor)
    return [record_of(row, Entry) for row in connection.execute(query).mappings()]


def latest(
    connection: sa.Connection, limit: int, *, before: int | None = None, kind: str | None = None
) -> list[Entry]:
    """The newest entries, newest first: with a smaller number, of one kind of action, as asked."""
    query = sa.select(audit).order_by(audit.c.entry.desc()).limit(limit)
    if before is not None:
        query = query.where(audit.c.entry < before)
    if kind is not None:
        below = audit.c.action.startswith(f"{kind}.", autoescape=True)
        query = query.where(sa.or_(audit.c.action == kind, below))
    return [record_of(row, Entry) for row in connection.execute(query).mappings()]


def kinds(connection: sa.Connection) -> dict[str, int]:
    """Kind of action, which is its name up to the point -> entries."""
    query = sa.select(audit.c.action, sa.func.count()).group_by(audit.c.action)
    found: Counter[str] = Counter()
    for action, number in connection.execute(query):
        found[action.partition(".")[0]] += number
    return dict(sorted(found.items()))


def count(connection: sa.Connection) -> int:
    """How many entries there are."""
    return int(connection.execute(sa.select(sa.func.count()).select_from(audit)).scalar_one())


def every(connection: sa.Connection, page: int = 1000) -> Iterator[Entry]:
    """All entries, oldest first."""
    last = 0
    while found := after(connection, last, page):
        yield from found
        last = found[-1].entry
