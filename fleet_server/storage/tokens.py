"""Queries on API tokens and console sessions; both are stored as hashes only."""

import msgspec
import sqlalchemy as sa

from fleet_server.storage.rows import record
from fleet_server.storage.tables import sessions, tokens


class StoredToken(msgspec.Struct, frozen=True, kw_only=True):
    """Who may do what; ``hash`` is the sha256 of the secret."""

    hash: str
    name: str
    role: str
    created_ms: int
    expires_ms: int | None = None
    """When it ends by itself; none: never."""
    models: list[str] = []
    """What it may change something of; empty: of all."""


def add(connection: sa.Connection, token: StoredToken) -> None:
    """Store a new token."""
    connection.execute(tokens.insert().values(msgspec.structs.asdict(token)))


def find(connection: sa.Connection, digest: str) -> StoredToken | None:
    """The token with this hash."""
    row = connection.execute(sa.select(tokens).where(tokens.c.hash == digest)).mappings().first()
    return None if row is None else record(row, StoredToken)


def every(connection: sa.Connection) -> list[StoredToken]:
    """All tokens, oldest first."""
    query = sa.select(tokens).order_by(tokens.c.created_ms, tokens.c.hash)
    return [record(row, StoredToken) for row in connection.execute(query).mappings()]


def drop(connection: sa.Connection, digest: str) -> None:
    """Remove a token and the sessions that began with it."""
    connection.execute(sessions.delete().where(sessions.c.token == digest))
    connection.execute(tokens.delete().where(tokens.c.hash == digest))


def drop_ended(connection: sa.Connection, before_ms: int) -> None:
    """Remove tokens that ended by themselves before a moment."""
    connection.execute(tokens.delete().where(tokens.c.expires_ms < before_ms))


def add_session(connection: sa.Connection, digest: str, token: str, expires_ms: int) -> None:
    """Store a console session of a token."""
    connection.execute(sessions.insert().values(hash=digest, token=token, expires_ms=expires_ms))


def find_session(connection: sa.Connection, digest: str, now_ms: int) -> StoredToken | None:
    """The token of a session that has not ended."""
    query = (
        sa.select(tokens)
        .join(sessions, sessions.c.token == tokens.c.hash)
        .where(
            sessions.c.hash == digest,
            sessions.c.expires_ms > now_ms,
            sa.or_(tokens.c.expires_ms.is_(None), tokens.c.expires_ms > now_ms),
        )
    )
    row = connection.execute(query).mappings().first()
    return None if row is None else record(row, StoredToken)


def end_sessions(connection: sa.Connection, digest: str | None, now_ms: int) -> None:
    """Drop one session, and those whose time is over."""
    connection.execute(
        sessions.delete().where((sessions.c.hash == digest) | (sessions.c.expires_ms <= now_ms))
    )
