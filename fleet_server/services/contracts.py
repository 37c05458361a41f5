"""Whether those who use a model's output agree with what a release makes of it."""

import sqlalchemy as sa

from fleet_server.services.catalog import Release
from fleet_server.services.errors import Conflict


def check(_connection: sa.Connection, candidate: Release, incumbent: Release | None) -> None:
    """Refuse a release that breaks its output contract without saying so.

    Raises:
        Conflict: classes were taken away, renamed or moved, and MAJOR is the same.
    """
    if incumbent is None or not breaks(candidate, incumbent):
        return
    ours, theirs = candidate.ref.version.split(".")[0], incumbent.ref.version.split(".")[0]
    if ours == theirs:
        raise Conflict(
            f"{candidate.ref.name} answers otherwise than {incumbent.ref.name} does, and both are "
            f"version {ours}: give what breaks its users the next MAJOR version"
        )


def breaks(candidate: Release, incumbent: Release) -> bool:
    """Whether who reads the incumbent's answers would misread the candidate's."""
    ours, theirs = candidate.manifest.output, incumbent.manifest.output
    return ours.name != theirs.name or ours.classes[: len(theirs.classes)] != theirs.classes
