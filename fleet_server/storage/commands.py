"""Queries on commands to devices: what was ordered, what was sent, what became of it."""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from fleet_server.storage.rows import record
from fleet_server.storage.tables import commands, devices

MOST_NAMES = 500
"""In one query."""


class StoredCommand(msgspec.Struct, frozen=True, kw_only=True):
    """One command to one device."""

    command: str
    device: str
    kind: str
    model: str
    reason: str
    until_ms: int | None
    issued_ms: int
    expires_ms: int
    issued_by: str
    sent_ms: int | None = None
    outcome: str | None = None
    """As the device said; none while it said nothing."""
    detail: str = ""
    outcome_ms: int | None = None
    """When the server heard of it."""


def add(connection: sa.Connection, rows: Sequence[StoredCommand]) -> None:
    """Store new commands."""
    connection.execute(commands.insert(), [msgspec.structs.asdict(row) for row in rows])


def latest(connection: sa.Connection, device: str, limit: int) -> list[StoredCommand]:
    """A device's commands, newest first."""
    query = (
        sa.select(commands)
        .where(commands.c.device == device)
        .order_by(commands.c.issued_ms.desc(), commands.c.command.desc())
        .limit(limit)
    )
    return [record(row, StoredCommand) for row in connection.execute(query).mappings()]


def newest_ms(connection: sa.Connection, names: Sequence[str]) -> dict[str, int]:
    """Device -> when its newest command was issued; without those that never had one."""
    found: dict[str, int] = {}
    for start in range(0, len(names), MOST_NAMES):
        part = names[start : start + MOST_NAMES]
        query = (
            sa.select(commands.c.device, sa.func.max(commands.c.issued_ms))
            .where(commands.c.device.in_(part))
            .group_by(commands.c.device)
        )
        found |= {row[0]: row[1] for row in connection.execute(query)}
    return found


def due(
    connection: sa.Connection, now_ms: int, sent_before_ms: int, limit: int
) -> list[StoredCommand]:
    """Commands that no device has answered, that hold still, and were not sent just now.

    A device that was not heard since then has it waiting at the broker: one more would wait there
    beside it.
    """
    unheeded = sa.and_(
        commands.c.sent_ms < sent_before_ms, devices.c.last_seen_ms > commands.c.sent_ms
    )
    query = (
        sa.select(commands)
        .join(devices, devices.c.device == commands.c.device)
        .where(
            commands.c.outcome.is_(None),
            commands.c.expires_ms > now_ms,
            sa.or_(commands.c.sent_ms.is_(None), unheeded),
        )
        .order_by(commands.c.sent_ms.is_not(None), commands.c.issued_ms, commands.c.command)
        .limit(limit)
    )
    return [record(row, StoredCommand) for row in connection.execute(query).mappings()]


def note_sent(connection: sa.Connection, names: Sequence[str], at_ms: int) -> None:
    """Note that commands were handed to the broker."""
    connection.execute(commands.update().where(commands.c.command.in_(names)).values(sent_ms=at_ms))


def note_outcome(
    connection: sa.Connection, device: str, command: str, outcome: str, detail: str, at_ms: int
) -> bool:
    """Note what a device made of a command of its own; whether that is news."""
    done = connection.execute(
        commands.update()
        .where(
            commands.c.command == command,
            commands.c.device == device,
            commands.c.outcome.is_(None),
        )
        .values(outcome=outcome, detail=detail, outcome_ms=at_ms)
    )
    return bool(done.rowcount)


def forget(connection: sa.Connection, before_ms: int) -> None:
    """Drop commands that were issued earlier."""
    connection.execute(commands.delete().where(commands.c.issued_ms < before_ms))
