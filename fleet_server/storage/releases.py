"""Queries on approved releases and on what is in production."""

import msgspec
import sqlalchemy as sa

from edge_core.release import ReleaseRef
from fleet_server.storage.rows import record
from fleet_server.storage.tables import production, production_history, releases
from fleet_server.storage.upsert import insert


class StoredRelease(msgspec.Struct, frozen=True, kw_only=True):
    """A release as it was verified."""

    digest: str
    model: str
    version: str
    manifest: bytes
    features: bytes
    reference: bytes
    listed: bool
    listed_ms: int
    revoked_ms: int | None

    @property
    def name(self) -> str:
        """``model@version``."""
        return f"{self.model}@{self.version}"


class InProduction(msgspec.Struct, frozen=True, kw_only=True):
    """The release that a model's devices run unless a rollout says otherwise."""

    model: str
    digest: str
    since_ms: int
    rollout: str | None
    verdict: int | None


class WasInProduction(msgspec.Struct, frozen=True, kw_only=True):
    """A release that was in production for a time; without an end it is still."""

    model: str
    digest: str
    since_ms: int
    until_ms: int | None
    rollout: str | None
    verdict: int | None


def listing(connection: sa.Connection) -> dict[str, bool]:
    """Digest -> whether it is still listed."""
    rows = connection.execute(sa.select(releases.c.digest, releases.c.listed))
    return {row.digest: row.listed for row in rows}


def add(connection: sa.Connection, release: StoredRelease) -> None:
    """Store a release that was not known, or list a revoked one again."""
    values = msgspec.structs.asdict(release)
    connection.execute(
        insert(connection, releases)
        .values(values)
        .on_conflict_do_update(index_elements=["digest"], set_=values)
    )


def revoke(connection: sa.Connection, digest: str, at_ms: int) -> None:
    """Note that the repository no longer lists a release."""
    connection.execute(
        releases.update().where(releases.c.digest == digest).values(listed=False, revoked_ms=at_ms)
    )


def one(connection: sa.Connection, digest: str) -> StoredRelease | None:
    """One release by its digest."""
    row = connection.execute(sa.select(releases).where(releases.c.digest == digest)).mappings()
    found = row.first()
    return None if found is None else record(found, StoredRelease)


def beginning(connection: sa.Connection, start: str) -> list[str]:
    """Digests that begin with these hex digits."""
    query = sa.select(releases.c.digest).where(releases.c.digest.startswith(start))
    return list(connection.execute(query).scalars())


def by_name(connection: sa.Connection, model: str, version: str) -> StoredRelease | None:
    """The release of a model and version; a listed one before a revoked one."""
    query = (
        sa.select(releases)
        .where(releases.c.model == model, releases.c.version == version)
        .order_by(releases.c.listed.desc(), releases.c.listed_ms.desc())
    )
    found = connection.execute(query).mappings().first()
    return None if found is None else record(found, StoredRelease)


def every(connection: sa.Connection) -> list[StoredRelease]:
    """All releases, in the order in which they were listed."""
    query = sa.select(releases).order_by(releases.c.listed_ms, releases.c.model, releases.c.version)
    return [record(row, StoredRelease) for row in connection.execute(query).mappings()]


def names(connection: sa.Connection) -> dict[str, str]:
    """Digest -> ``model@version``."""
    query = sa.select(releases.c.digest, releases.c.model, releases.c.version)
    return {row.digest: f"{row.model}@{row.version}" for row in connection.execute(query)}


def identities(connection: sa.Connection) -> list[ReleaseRef]:
    """Model, version and digest of every release."""
    query = sa.select(releases.c.model, releases.c.version, releases.c.digest)
    return [record(row, ReleaseRef) for row in connection.execute(query).mappings()]


def in_production(connection: sa.Connection) -> dict[str, InProduction]:
    """Model -> what is in production."""
    rows = connection.execute(sa.select(production)).mappings()
    return {row["model"]: record(row, InProduction) for row in rows}


def put_in_production(connection: sa.Connection, row: InProduction) -> None:
    """Make a release the one that a model's devices run; what was before stays known."""
    values = msgspec.structs.asdict(row)
    connection.execute(
        insert(connection, production)
        .values(values)
        .on_conflict_do_update(index_elements=["model"], set_=values)
    )
    connection.execute(
        production_history.update()
        .where(production_history.c.model == row.model, production_history.c.until_ms.is_(None))
        .values(until_ms=row.since_ms)
    )
    connection.execute(
        insert(connection, production_history)
        .values(values)
        .on_conflict_do_update(
            index_elements=["model", "since_ms"], set_=values | {"until_ms": None}
        )
    )


def history(connection: sa.Connection, model: str | None = None) -> list[WasInProduction]:
    """What was ever in production, newest first."""
    query = sa.select(production_history).order_by(
        production_history.c.since_ms.desc(), production_history.c.model
    )
    if model is not None:
        query = query.where(production_history.c.model == model)
    return [record(row, WasInProduction) for row in connection.execute(query).mappings()]


def production_at(connection: sa.Connection, at_ms: int) -> list[WasInProduction]:
    """What was in production at a moment, by model."""
    h = production_history.c
    query = (
        sa.select(production_history)
        .where(h.since_ms <= at_ms, sa.or_(h.until_ms.is_(None), h.until_ms > at_ms))
        .order_by(h.model)
    )
    return [record(row, WasInProduction) for row in connection.execute(query).mappings()]
