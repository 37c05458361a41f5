"""When the metadata ends that people sign: root, targets and the list of releases."""

from datetime import UTC, datetime
from pathlib import Path

from tuf.api.metadata import Root, Targets

from edge_core.errors import SerinusError
from fleet_server import repository as reader
from fleet_server.repository_refresh import versions_in

EVER = datetime.min.replace(tzinfo=UTC)
"""At that time nothing has expired: what is over is told of, too."""


def endings(folder: Path, pinned_root: bytes) -> dict[str, datetime]:
    """Role -> end of its newest trusted metadata; without those that are not there.

    Raises:
        UntrustedBundle: the root is not trusted.
    """
    root = reader.verified_root(folder, pinned_root)
    found = {"root": root.expires}
    targets = _newest(folder, root, "targets")
    if targets is not None:
        found["targets"] = targets.expires
        releases = _newest(folder, targets, reader.RELEASES)
        if releases is not None:
            found[reader.RELEASES] = releases.expires
    return found


def _newest(folder: Path, parent: Root | Targets, role: str) -> Targets | None:
    for version in sorted(versions_in(folder, role), reverse=True):
        try:
            return reader.verified_targets(folder, parent, role, version, EVER)
        except SerinusError:
            continue
    return None
