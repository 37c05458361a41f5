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


def releases(repository: Path, pinned: Path) -> Targets:
    """Newest list of releases, signed by the key that the targets role delegates to.

    Raises:
        UntrustedBundle: a signature is missing or made by another key, or a file's name gives
            another version than its signed content.
        Unavailable: a file cannot be read.
    """
    metadata = repository / "metadata"
    version = _newest(metadata, RELEASES)
    path = metadata / f"{version}.{RELEASES}.json"
    listed = _parsed(path, Targets)
    _verify(targets(repository, pinned), RELEASES, listed, path)
    _check_version(listed.signed, version, path)
    return listed.signed


def targets(repository: Path, pinned: Path) -> Targets:
    """Top-level targets metadata; ``pinned`` is the root to start from, else the first one."""
    metadata = repository / "metadata"
    path = pinned if pinned.exists() else metadata / PINNED_ROOT
    root = _parsed(path, Root)
    _verify(root.signed, Root.type, root, path)
    while (path := metadata / f"{root.signed.version + 1}.root.json").exists():
        newer = _parsed(path, Root)
        _verify(root.signed, Root.type, newer, path)
        _verify(newer.signed, Root.type, newer, path)
        _check_version(newer.signed, root.signed.version + 1, path)
        root = newer
    version = _newest(metadata, Targets.type)
    path = metadata / f"{version}.{Targets.type}.json"
    found = _parsed(path, Targets)
    _verify(root.signed, Targets.type, found, path)
    _check_version(found.signed, version, path)
    return found.signed


def read(path: Path) -> bytes:
    """Bytes of a file; raise :class:`Unavailable` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror}") from error


def _newest(metadata: Path, role: str) -> int:
    names = (re.match(rf"^(\d+)\.{role}\.json$", path.name) for path in metadata.iterdir())
    versions = [int(match[1]) for match in names if match]
    return max(versions, default=1)


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
