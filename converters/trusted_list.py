"""Reads the list of releases that a pinned root allows. Public keys only."""

import re
from pathlib import Path
from typing import TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets
from tuf.api.serialization import DeserializationError

from converters.release_list import RELEASES
from edge_core.errors import Unavailable, UntrustedBundle

PINNED_ROOT = "1.root.json"
"""The first root: ``init-repository`` leaves a copy beside the keys."""

S = TypeVar("S", Root, Targets)


def root(repository: Path, pinned: Path) -> Root:
    """Newest root that the chain from ``pinned`` leads to; from the first one where that is none.

    Raises:
        UntrustedBundle: a root is not signed by the one before it and by itself.
        Unavailable: a file cannot be read.
    """
    return roots(repository, pinned)[-1].signed


def roots(repository: Path, pinned: Path) -> list[Metadata[Root]]:
    """Every root of the chain from ``pinned``, oldest first; raises as :func:`root` does."""
    metadata = repository / "metadata"
    path = pinned if pinned.exists() else metadata / PINNED_ROOT
    first = _parsed(path, Root)
    _verify(first.signed, Root.type, first, path)
    chain = [first]
    while (path := metadata / f"{chain[-1].signed.version + 1}.root.json").exists():
        newer = _parsed(path, Root)
        _verify(chain[-1].signed, Root.type, newer, path)
        _verify(newer.signed, Root.type, newer, path)
        _check_version(newer.signed, chain[-1].signed.version + 1, path)
        chain.append(newer)
    return chain


def targets(repository: Path, pinned: Path) -> Targets:
    """Newest targets metadata, signed by the keys of the newest root; raises as :func:`root`."""
    return targets_of(root(repository, pinned), repository)


def targets_of(root: Root, repository: Path, version: int | None = None) -> Targets:
    """Top-level targets metadata, the newest or one version, signed by a root's targets keys."""
    metadata = repository / "metadata"
    version = version or newest(repository, Targets.type)
    path = metadata / f"{version}.{Targets.type}.json"
    found = _parsed(path, Targets)
    _verify(root, Targets.type, found, path)
    _check_version(found.signed, version, path)
    return found.signed


def releases(repository: Path, pinned: Path) -> Targets:
    """Newest list of releases, signed by the key that the targets role delegates to.

    Raises:
        UntrustedBundle: a signature is missing or made by another key, or a file's name gives
            another version than its signed content.
        Unavailable: a file cannot be read.
    """
    return releases_of(targets(repository, pinned), repository)


def releases_of(parent: Targets, repository: Path, version: int | None = None) -> Targets:
    """List of releases, the newest or one version, signed by a delegation's keys."""
    version = version or newest(repository, RELEASES)
    path = repository / "metadata" / f"{version}.{RELEASES}.json"
    listed = _parsed(path, Targets)
    _verify(parent, RELEASES, listed, path)
    _check_version(listed.signed, version, path)
    return listed.signed


def versions(repository: Path, role: str) -> list[int]:
    """Versions of a role that are in the repository, oldest first; nothing is verified."""
    pattern = re.compile(rf"^(\d+)\.{role}\.json$")
    names = (pattern.match(path.name) for path in (repository / "metadata").glob("*.json"))
    return sorted(int(match[1]) for match in names if match)


def newest(repository: Path, role: str) -> int:
    """Newest version of a role by its file's name, 1 where there is none."""
    return max(versions(repository, role), default=1)


def read(path: Path) -> bytes:
    """Bytes of a file; raise :class:`Unavailable` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror}") from error


def _check_version(signed: Root | Targets, version: int, path: Path) -> None:
    """An old list under a new name would bring back what was revoked since."""
    if signed.version != version:
        raise UntrustedBundle(f"{path} says that it is version {signed.version}")


def _parsed(path: Path, kind: type[S]) -> Metadata[S]:
    try:
        metadata: Metadata[S] = Metadata.from_bytes(read(path))
    except DeserializationError as error:
        raise UntrustedBundle(f"{path} is not valid TUF metadata: {error}") from error
    if not isinstance(metadata.signed, kind):
        raise UntrustedBundle(f"{path} is {metadata.signed.type} metadata, not {kind.type}")
    return metadata


def _verify(
    parent: Root | Targets, role: str, metadata: "Metadata[Root] | Metadata[Targets]", path: Path
) -> None:
    try:
        parent.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise UntrustedBundle(f"{path} is not trusted: {error}") from error
