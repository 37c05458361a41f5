"""Where a release comes from, what came of it, and how it differs from another."""

from typing import Any

import msgspec
import sqlalchemy as sa

from edge_core.release import ReleaseRef
from fleet_server.domain.release_diff import Difference, differences
from fleet_server.services.catalog import Catalog, Release
from fleet_server.services.views import built_from
from fleet_server.storage.database import Database

MOST_GENERATIONS = 100


class Ancestor(msgspec.Struct, frozen=True, kw_only=True):
    """One release in a line."""

    name: str
    digest: str
    known: bool
    """Whether the repository ever listed it; others are told of by their child alone."""
    listed_ms: int | None
    built_from: dict[str, Any] | None


class Descendant(msgspec.Struct, frozen=True, kw_only=True):
    """One release that came of another."""

    name: str
    digest: str
    parent: str
    generation: int
    """1: a child."""


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """A release with those before and after it."""

    release: Ancestor
    ancestors: list[Ancestor]
    """Its parent first."""
    descendants: list[Descendant]
    """Its children, their children, and so on; each after its parent."""


class ReleaseDiff(msgspec.Struct, frozen=True, kw_only=True):
    """What differs."""

    before: str
    after: str
    same_features: bool
    same_output: bool
    same_data: bool
    differences: list[Difference]


class Lineages:
    """Read-only questions on releases."""

    def __init__(self, database: Database, catalog: Catalog) -> None:
        self._database = database
        self._catalog = catalog

    def of(self, name: str) -> Lineage:
        """The line of one release.

        Raises:
            InvalidRequest: the name has another form.
            NotFound: it was never approved.
        """
        with self._database.read() as connection:
            release = self._catalog.by_name(connection, name)
            every = self._catalog.every(connection)
        return Lineage(
            release=_shown(release),
            ancestors=_ancestors(release, every),
            descendants=_descendants(release.ref, every),
        )

    def diff(self, before: str, after: str) -> ReleaseDiff:
        """What the second release has otherwise than the first; raises as :meth:`of`."""
        with self._database.read() as connection:
            one, other = self._two(connection, before, after)
        found = differences(_told(one), _told(other))
        parts = {difference.part for difference in found}
        return ReleaseDiff(
            before=one.ref.name,
            after=other.ref.name,
            same_features=one.definition_digest == other.definition_digest,
            same_output="output" not in parts,
            same_data=not parts & {"datasets", "snapshot"},
            differences=found,
        )

    def _two(self, connection: sa.Connection, before: str, after: str) -> tuple[Release, Release]:
        return (
            self._catalog.by_name(connection, before),
            self._catalog.by_name(connection, after),
        )


def _ancestors(release: Release, every: list[Release]) -> list[Ancestor]:
    by_digest = {other.ref.digest: other for other in every}
    found: list[Ancestor] = []
    parent = release.manifest.parent
    while parent is not None and len(found) < MOST_GENERATIONS:
        known = by_digest.get(parent.digest)
        if known is None:
            found.append(
                Ancestor(
                    name=parent.name,
                    digest=parent.digest,
                    known=False,
                    listed_ms=None,
                    built_from=None,
                )
            )
            break
        found.append(_shown(known))
        parent = known.manifest.parent
    return found


def _descendants(ref: ReleaseRef, every: list[Release], generation: int = 1) -> list[Descendant]:
    """A parent's digest is part of its child's, so no line comes back to where it began."""
    if generation > MOST_GENERATIONS:
        return []
    found = []
    for other in every:
        if other.manifest.parent == ref:
            child = Descendant(
                name=other.ref.name,
                digest=other.ref.digest,
                parent=ref.name,
                generation=generation,
            )
            found += [child, *_descendants(other.ref, every, generation + 1)]
    return found


def _told(release: Release) -> dict[str, Any]:
    """What a release says of itself; its features by what each is, not by the file's digest."""
    manifest: dict[str, Any] = msgspec.to_builtins(release.manifest)
    return manifest | {"features": msgspec.to_builtins(release.definition)}


def _shown(release: Release) -> Ancestor:
    return Ancestor(
        name=release.ref.name,
        digest=release.ref.digest,
        known=True,
        listed_ms=release.listed_ms,
        built_from=built_from(release),
    )
