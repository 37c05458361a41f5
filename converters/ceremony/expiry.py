"""What of a repository ends when, and what has to be done before that."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from converters import trusted_list
from converters.ceremony import ground
from converters.release_list import RELEASES
from edge_core.errors import SerinusError

Standing = Literal["good", "soon", "expired", "untrusted", "missing"]
FIXES: Final = {
    "root": "serinus-convert root propose",
    "targets": "serinus-convert delegation propose",
    RELEASES: "serinus-convert renew",
    "snapshot": "the server signs it; is it running?",
    "timestamp": "the server signs it; is it running?",
}


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """One role's newest metadata."""

    role: str
    version: int
    """0 where there is none yet."""
    expires: datetime | None
    standing: Standing
    fix: str
    """Who or what makes the next one."""


def of_repository(
    repository: Path, trusted: Path | None, now: datetime, within: timedelta
) -> list[Ending]:
    """Every role, those first that people sign.

    The server's two are never ``soon``: it signs them again long before their short end.

    Raises:
        SerinusError: there is no root, or it is not trusted.
    """
    root = ground.of_repository(repository, trusted).need_root()
    targets = _tried(lambda: trusted_list.targets_of(root, repository))
    releases = None
    if targets is not None:
        releases = _tried(lambda: trusted_list.releases_of(targets, repository))
    people: list[tuple[str, Root | Targets | None]] = [
        (Root.type, root), (Targets.type, targets), (RELEASES, releases),
    ]  # fmt: skip
    found = [_ending(role, signed, repository, now, within) for role, signed in people]
    for kind in (Snapshot, Timestamp):
        signed = _online(root, repository, kind)
        found.append(_ending(kind.type, signed, repository, now, timedelta()))
    return found


def needs_people(endings: list[Ending]) -> list[Ending]:
    """Those for which somebody has to do something."""
    return [ending for ending in endings if ending.standing in ("soon", "expired", "untrusted")]


def _ending(
    role: str,
    signed: Root | Targets | Snapshot | Timestamp | None,
    repository: Path,
    now: datetime,
    within: timedelta,
) -> Ending:
    if signed is None:
        there = _there(repository, role)
        standing: Standing = "untrusted" if there else "missing"
        return Ending(role=role, version=there, expires=None, standing=standing, fix=FIXES[role])
    left = signed.expires - now
    standing = "good" if left > within else "soon"
    if left <= timedelta():
        standing = "expired"
    return Ending(
        role=role,
        version=signed.version,
        expires=signed.expires,
        standing=standing,
        fix=FIXES[role],
    )


def _there(repository: Path, role: str) -> int:
    """Newest version by the names of files, trusted or not."""
    if role == Timestamp.type:
        return int((repository / "metadata" / "timestamp.json").exists())
    return max(trusted_list.versions(repository, role), default=0)


def _tried(read: Callable[[], Targets]) -> Targets | None:
    try:
        return read()
    except SerinusError:
        return None


def _online(
    root: Root, repository: Path, kind: type[Snapshot] | type[Timestamp]
) -> Snapshot | Timestamp | None:
    number = f"{_there(repository, Snapshot.type)}." if kind is Snapshot else ""
    try:
        data = trusted_list.read(repository / "metadata" / f"{number}{kind.type}.json")
        found: Metadata[Any] = Metadata.from_bytes(data)
        root.verify_delegate(kind.type, found.signed_bytes, found.signatures)
    except (SerinusError, DeserializationError, RepositoryError):
        return None
    return found.signed if isinstance(found.signed, kind) else None
