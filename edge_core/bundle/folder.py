"""A bundle on disk: reading its manifest and checking its files against it."""

import os
from collections.abc import Collection
from pathlib import Path

from edge_core.bundle import manifest as manifests
from edge_core.bundle.digest import sha256_bytes, sha256_file
from edge_core.bundle.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    MAX_PROVENANCE_BYTES,
    PROVENANCE,
    SIGNATURE,
    FileEntry,
    Manifest,
)
from edge_core.errors import InvalidBundle
from edge_core.release import ReleaseRef


def read_limited(path: Path, limit: int) -> bytes:
    """Read a small file; raise :class:`InvalidBundle` where it is missing or too large."""
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise InvalidBundle(f"cannot read {path}: {error.strerror}") from error
    if len(data) > limit:
        raise InvalidBundle(f"{path.name} has more than the {limit} bytes allowed")
    return data


def read_provenance(folder: Path) -> bytes | None:
    """Read ``provenance.sig``; none where there is none. As :func:`read_limited` otherwise."""
    path = folder / PROVENANCE
    return read_limited(path, MAX_PROVENANCE_BYTES) if os.path.lexists(path) else None


def read(folder: Path) -> Manifest:
    """Read and parse the folder's manifest; nothing else is checked."""
    return manifests.parse(read_limited(folder / MANIFEST, MAX_MANIFEST_BYTES))


def ref(folder: Path) -> ReleaseRef:
    """Identify the folder's release by the digest of its manifest's bytes."""
    data = read_limited(folder / MANIFEST, MAX_MANIFEST_BYTES)
    manifest = manifests.parse(data)
    return ReleaseRef(model=manifest.model, version=manifest.version, digest=sha256_bytes(data))


def check(folder: Path, manifest: Manifest, *, only: Collection[str] | None = None) -> None:
    """Compare the folder's files with the manifest.

    Args:
        folder: the bundle folder.
        manifest: its manifest, already trusted.
        only: check these paths and allow the others to be missing (a device holds one variant).

    Raises:
        InvalidBundle: a file is missing, differs, or is not listed.
    """
    listed = {entry.path: entry for entry in manifest.files}
    for path in sorted(listed if only is None else only):
        check_file(folder / path, manifest.file(path))
    # A linked folder counts as a file: whatever lies behind it was never signed.
    present = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    extra = present - listed.keys() - {MANIFEST, SIGNATURE, PROVENANCE}
    if extra:
        raise InvalidBundle(
            f"files that the manifest does not list: {', '.join(sorted(extra)[:5])}"
        )


def check_file(path: Path, entry: FileEntry) -> None:
    """Compare one file with its entry; raise :class:`InvalidBundle` where it differs."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise InvalidBundle(f"{entry.path} is not a plain file; a bundle holds no others")
    found = sha256_file(path, limit=entry.size)
    if found.size != entry.size:
        raise InvalidBundle(f"{entry.path} has {found.size} of its {entry.size} bytes")
    if found.sha256 != entry.sha256:
        raise InvalidBundle(f"{entry.path} was altered: its sha256 is not the manifest's")
