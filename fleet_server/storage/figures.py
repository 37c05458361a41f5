"""Counts over whole tables, by the database, for dashboards."""

from typing import Any

import sqlalchemy as sa

from fleet_server.storage.tables import (
    alerts,
    commands,
    desired,
    devices,
    incidents,
    parity,
    rejected,
    retrain_requests,
    rollouts,
    totals,
)

Counts = dict[tuple[str, ...], int]


def _counted(connection: sa.Connection, query: sa.Select[Any]) -> Counts:
    """Rows whose last column is a count, by the others."""
    return {
        tuple("" if key is None else str(key) for key in row[:-1]): int(row[-1] or 0)
        for row in connection.execute(query)
    }


def devices_by_release(connection: sa.Connection) -> Counts:
    """(digest, state of its update, ``True`` or ``False`` for online) -> devices."""
    d = devices.c
    keys = (d.active, d.update_state, d.online)
    return _counted(connection, sa.select(*keys, sa.func.count()).group_by(*keys))


def rows_by_release(connection: sa.Connection) -> dict[str, Counts]:
    """Figure -> (digest, arm) -> sum over devices."""
    t = totals.c
    names = ("rows", "errors", "right", "wrong")
    sums = [sa.func.sum(t[name]) for name in names]
    query = sa.select(t.digest, t.arm, *sums).group_by(t.digest, t.arm)
    found: dict[str, Counts] = {name: {} for name in names}
    for digest, arm, *values in connection.execute(query):
        for name, value in zip(names, values, strict=True):
            found[name][digest, arm] = int(value or 0)
    return found


def rollouts_by_state(connection: sa.Connection) -> Counts:
    """(model, state) -> rollouts."""
    keys = (rollouts.c.model, rollouts.c.state)
    return _counted(connection, sa.select(*keys, sa.func.count()).group_by(*keys))


def open_alerts(connection: sa.Connection) -> Counts:
    """(kind,) -> open alerts."""
    query = sa.select(alerts.c.kind, sa.func.count()).where(alerts.c.closed_ms.is_(None))
    return _counted(connection, query.group_by(alerts.c.kind))


def unresolved_incidents(connection: sa.Connection) -> Counts:
    """(kind, state) -> incidents that nobody has resolved."""
    keys = (incidents.c.kind, incidents.c.state)
    query = sa.select(*keys, sa.func.count()).where(incidents.c.state != "resolved")
    return _counted(connection, query.group_by(*keys))


def rejected_messages(connection: sa.Connection) -> Counts:
    """(kind of message, reason) -> messages."""
    keys = (rejected.c.kind, rejected.c.reason)
    return _counted(connection, sa.select(*keys, sa.func.sum(rejected.c["count"])).group_by(*keys))


def parity_samples(connection: sa.Connection) -> dict[str, Counts]:
    """``compared`` and ``mismatches`` -> (digest,) -> samples."""
    found: dict[str, Counts] = {}
    for name in ("compared", "mismatches"):
        query = sa.select(parity.c.digest, sa.func.sum(parity.c[name]))
        found[name] = _counted(connection, query.group_by(parity.c.digest))
    return found


def unsent(connection: sa.Connection) -> int:
    """Desired states that the broker does not hold yet."""
    query = sa.select(sa.func.count()).select_from(desired)
    return int(connection.execute(query.where(~desired.c.confirmed_sent)).scalar_one())


def unanswered_commands(connection: sa.Connection, now_ms: int) -> int:
    """Commands that hold and whose device has not said what became of them."""
    return _without_outcome(connection, commands.c.expires_ms > now_ms)


def expired_commands(connection: sa.Connection, now_ms: int) -> int:
    """Commands that ended without a word of their device."""
    return _without_outcome(connection, commands.c.expires_ms <= now_ms)


def _without_outcome(connection: sa.Connection, which: sa.ColumnElement[bool]) -> int:
    query = sa.select(sa.func.count()).select_from(commands)
    return int(connection.execute(query.where(commands.c.outcome.is_(None), which)).scalar_one())


def retraining_by_state(connection: sa.Connection) -> Counts:
    """(model, state) -> requests to train again."""
    keys = (retrain_requests.c.model, retrain_requests.c.state)
    return _counted(connection, sa.select(*keys, sa.func.count()).group_by(*keys))
