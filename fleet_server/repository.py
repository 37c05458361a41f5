"""Reads the release repository: root -> targets -> releases, every byte verified before use.

Public keys only. Who may approve is fixed by a root that was pinned; a release that this module
lists was signed by the ``releases`` delegation.
"""

from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Metadata,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from edge_core.bundle import manifest as manifests
from edge_core.bundle.manifest import Manifest
from edge_core.errors import InvalidBundle, ReleaseNotApproved, Unavailable, UntrustedBundle
from edge_core.release import ReleaseRef

RELEASES = "releases"
MAX_METADATA_BYTES = 16 * 1024 * 1024
MAX_ROOTS = 256

S = TypeVar("S", Root, Snapshot, Targets, Timestamp)


class ApprovedRelease(msgspec.Struct, frozen=True, kw_only=True):
    """One release as the repository lists it, with the bytes whose digests were checked."""

    ref: ReleaseRef
    manifest: Manifest
    manifest_bytes: bytes
    features: bytes
    reference: bytes


def read_metadata(path: Path) -> bytes:
    """Bytes of one metadata file; raise :class:`Unavailable` where it cannot be read."""
    try:
        if path.stat().st_size > MAX_METADATA_BYTES:
            raise UntrustedBundle(f"{path.name} is larger than {MAX_METADATA_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror}") from error


def parse(data: bytes, kind: type[S], name: str) -> Metadata[S]:
    """Parse metadata of one kind; raise :class:`UntrustedBundle` where it is another."""
    try:
        metadata: Metadata[S] = Metadata.from_bytes(data)
    except (DeserializationError, RecursionError) as error:
        raise UntrustedBundle(f"{name} is not valid TUF metadata: {error}") from error
    if not isinstance(metadata.signed, kind):
        raise UntrustedBundle(f"{name} is {metadata.signed.type} metadata, not {kind.type}")
    return metadata


def verified_root(folder: Path, pinned: bytes) -> Root:
    """Follow ``2.root.json``, ``3.root.json`` ... from the pinned root, each signed by both.

    Raises:
        UntrustedBundle: a newer root is not signed by the one before it and by itself.
    """
    root = parse(pinned, Root, "the pinned root")
    _verify(root.signed, "root", root, "the pinned root")
    for _ in range(MAX_ROOTS):
        version = root.signed.version + 1
        path = folder / "metadata" / f"{version}.root.json"
        if not path.exists():
            break
        newer = parse(read_metadata(path), Root, path.name)
        _verify(root.signed, "root", newer, path.name)
        _verify(newer.signed, "root", newer, path.name)
        if newer.signed.version != version:
            raise UntrustedBundle(f"{path.name} says that it is version {newer.signed.version}")
        root = newer
    return root.signed


def verified_targets(
    folder: Path, parent: Root | Targets, role: str, version: int, now: datetime
) -> Targets:
    """Read ``<version>.<role>.json``, signed by the keys that ``parent`` names for the role.

    Raises:
        UntrustedBundle: unsigned, expired, of another version, or naming paths that are not the
            role's to name.
    """
    path = folder / "metadata" / f"{version}.{role}.json"
    metadata = parse(read_metadata(path), Targets, path.name)
    _verify(parent, role, metadata, path.name)
    targets = metadata.signed
    if targets.version != version:
        raise UntrustedBundle(f"{path.name} says that it is version {targets.version}")
    if targets.is_expired(now):
        raise UntrustedBundle(f"{path.name} expired on {targets.expires:%Y-%m-%d}; publish again")
    if isinstance(parent, Targets):
        _check_paths(parent.get_delegated_role(role), targets, path.name)
    return targets


def read_target(folder: Path, targets: Targets, path: str) -> bytes:
    """Bytes of one target file, its length and digest checked.

    Raises:
        ReleaseNotApproved: the path is not listed.
        InvalidBundle: the file is not the one that was signed.
    """
    target = targets.targets.get(path)
    if target is None:
        raise ReleaseNotApproved(f"the repository does not list {path}")
    file = target_file(folder, target)
    try:
        if file.stat().st_size != target.length:
            raise InvalidBundle(f"{path} does not have the signed length {target.length}")
        data = file.read_bytes()
        target.verify_length_and_hashes(data)
    except OSError as error:
        raise Unavailable(f"cannot read {file}: {error.strerror}") from error
    except RepositoryError as error:
        raise InvalidBundle(f"{path} in the repository is not the file that was signed") from error
    return data


def target_file(folder: Path, target: TargetFile) -> Path:
    """Where a target lies with TUF's consistent-snapshot name."""
    return folder / "targets" / target.get_prefixed_paths()[0]


def listed_digests(targets: Targets) -> dict[str, str]:
    """Manifest digest -> folder (``model/version``) of every release that is listed."""
    listed = {}
    for path, target in targets.targets.items():
        marked = target.custom if isinstance(target.custom, dict) else {}
        mark = marked.get("serinus")
        if isinstance(mark, dict) and mark.get("kind") == "release":
            listed[target.hashes.get("sha256", "")] = path.rpartition("/")[0]
    return listed


def read_release(folder: Path, targets: Targets, digest: str, place: str) -> ApprovedRelease:
    """Read one listed release's manifest, feature definition and reference.

    Raises:
        InvalidBundle: the manifest is not valid or disagrees with where it is listed.
    """
    data = read_target(folder, targets, f"{place}/{manifests.MANIFEST}")
    manifest = manifests.parse(data)
    ref = ReleaseRef(model=manifest.model, version=manifest.version, digest=digest)
    if f"{ref.model}/{ref.version}" != place:
        raise InvalidBundle(f"the manifest listed under {place} is that of {ref.name}")
    return ApprovedRelease(
        ref=ref,
        manifest=manifest,
        manifest_bytes=data,
        features=_bundled(folder, targets, manifest, place, manifests.FEATURES),
        reference=_bundled(folder, targets, manifest, place, manifests.REFERENCE),
    )


def _bundled(folder: Path, targets: Targets, manifest: Manifest, place: str, name: str) -> bytes:
    listed = targets.targets.get(f"{place}/{name}")
    if listed is not None and listed.hashes.get("sha256") != manifest.file(name).sha256:
        raise InvalidBundle(f"{place}/{name} is listed with another digest than the manifest's")
    return read_target(folder, targets, f"{place}/{name}")


def _check_paths(role: Role, targets: Targets, name: str) -> None:
    for path in targets.targets:
        strange = {"", ".", ".."} & set(path.split("/"))
        if strange or not (isinstance(role, DelegatedRole) and role.is_delegated_path(path)):
            raise UntrustedBundle(f"{name} lists {path[:128]}, which is not its role's to list")


def _verify(parent: Root | Targets, role: str, metadata: Metadata[S], name: str) -> None:
    try:
        parent.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except RepositoryError as error:
        raise UntrustedBundle(f"{name} is not trusted: {error}") from error
    except ValueError as error:
        raise UntrustedBundle(f"{name}: nobody may sign for the role {role}: {error}") from error
