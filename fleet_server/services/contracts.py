"""Whether those who use a model's output agree with what a release makes of it."""

import msgspec
import sqlalchemy as sa

from edge_core.messages.telemetry import OTHER_CONSUMERS
from fleet_server.services.catalog import Release
from fleet_server.services.errors import Conflict
from fleet_server.storage import costs, declared

MOST_NAMED = 10


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """What the users of a model say of a candidate."""

    breaks: bool
    """Whether who reads the incumbent's answers would misread the candidate's."""
    missing: list[str]
    """Declared consumers that have not acknowledged it; a rollout waits for them."""
    undeclared: list[str]
    """Seen to ask, and declared by nobody: nothing waits for them."""


def check(connection: sa.Connection, candidate: Release, incumbent: Release | None) -> Agreement:
    """What the candidate's users say; refuse what they did not agree to.

    Raises:
        Conflict: classes were taken away, renamed or moved, and MAJOR is the same; or a declared
            consumer has not acknowledged the new MAJOR.
    """
    found = agreement(connection, candidate, incumbent)
    if not found.breaks or incumbent is None:
        return found
    if _major(candidate) == _major(incumbent):
        raise Conflict(
            f"{candidate.ref.name} answers otherwise than {incumbent.ref.name} does, and both are "
            f"version {_major(candidate)}: give what breaks its users the next MAJOR version"
        )
    if found.missing:
        raise Conflict(
            f"{candidate.ref.name} answers otherwise than {incumbent.ref.name} does, and "
            f"{', '.join(found.missing[:MOST_NAMED])} has not acknowledged that: serinus consumer "
            f"acknowledge {candidate.ref.model} NAME {_major(candidate)}"
        )
    return found


def agreement(
    connection: sa.Connection, candidate: Release, incumbent: Release | None
) -> Agreement:
    """The same without refusing."""
    model, major = candidate.ref.model, _major(candidate)
    names = {row.consumer for row in declared.every(connection, model)}
    agreed = {row.consumer for row in declared.agreed(connection, model) if row.major == major}
    seen = {row.consumer for row in costs.every_consumer(connection) if row.model == model}
    broken = incumbent is not None and breaks(candidate, incumbent)
    return Agreement(
        breaks=broken,
        missing=sorted(names - agreed) if broken else [],
        undeclared=sorted(seen - names - {OTHER_CONSUMERS}),
    )


def breaks(candidate: Release, incumbent: Release) -> bool:
    """Whether who reads the incumbent's answers would misread the candidate's."""
    ours, theirs = candidate.manifest.output, incumbent.manifest.output
    return ours.name != theirs.name or ours.classes[: len(theirs.classes)] != theirs.classes


def _major(release: Release) -> int:
    return int(release.ref.version.split(".")[0])
