"""Queries on enrolment tokens, which are stored as hashes only."""

import msgspec
import sqlalchemy as sa

from fleet_server.storage.rows import record
from fleet_server.storage.tables import enrol_tokens


class StoredEnrolToken(msgspec.Struct, frozen=True, kw_only=True):
    """Who may be enrolled, how often, until when; ``hash`` is the sha256 of the secret."""

    hash: str
    devices: str
    uses: int
    uses_left: int
    reenrol: bool
    created_ms: int
    created_by: str
    expires_ms: int
    revoked_ms: int | None = None


def add(connection: sa.Connection, token: StoredEnrolToken) -> None:
    """Store a new token."""
    connection.execute(enrol_tokens.insert().values(msgspec.structs.asdict(token)))


def find(connection: sa.Connection, digest: str) -> StoredEnrolToken | None:
    """The token with this hash."""
    query = sa.select(enrol_tokens).where(enrol_tokens.c.hash == digest)
    row = connection.execute(query).mappings().first()
    return None if row is None else record(row, StoredEnrolToken)


def every(connection: sa.Connection) -> list[StoredEnrolToken]:
    """All tokens, oldest first."""
    query = sa.select(enrol_tokens).order_by(enrol_tokens.c.created_ms, enrol_tokens.c.hash)
    return [record(row, StoredEnrolToken) for row in connection.execute(query).mappings()]


def use(connection: sa.Connection, digest: str) -> bool:
    """Take one of a token's uses; false where none is left."""
    done = connection.execute(
        enrol_tokens.update()
        .where(enrol_tokens.c.hash == digest, enrol_tokens.c.uses_left > 0)
        .values(uses_left=enrol_tokens.c.uses_left - 1)
    )
    return bool(done.rowcount)


def revoke(connection: sa.Connection, digest: str, now_ms: int) -> None:
    """End a token."""
    connection.execute(
        enrol_tokens.update().where(enrol_tokens.c.hash == digest).values(revoked_ms=now_ms)
    )


def drop(connection: sa.Connection, before_ms: int) -> None:
    """Forget tokens that ended before a moment."""
    connection.execute(enrol_tokens.delete().where(enrol_tokens.c.expires_ms < before_ms))
