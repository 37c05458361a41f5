"""Installing a bundle that was carried by hand: no server, but a signature by a pinned key."""

import tempfile
from pathlib import Path

import msgspec

from edge_agent.config import AgentConfig
from edge_agent.serving.release import LoadedRelease
from edge_agent.update.fetching import check_slot, needed_files
from edge_agent.update.journal import Entry, Journal
from edge_agent.update.self_test import self_test
from edge_agent.update.slots import Pointer, Slots
from edge_core import durable
from edge_core.bundle import archive, signature, trust
from edge_core.bundle import folder as folders
from edge_core.bundle.digest import CHUNK_BYTES, sha256_bytes
from edge_core.bundle.manifest import MANIFEST, MAX_MANIFEST_BYTES, SIGNATURE, Manifest
from edge_core.errors import InvalidBundle, InvalidConfiguration, NoDisk, SerinusError
from edge_core.release import ReleaseRef


def install(bundle: Path, config: AgentConfig) -> ReleaseRef:
    """Verify, self-test and activate a bundle folder or archive; the agent must not be running.

    Raises:
        UntrustedBundle: no pinned key signed it.
        InvalidBundle: truncated, altered, or for other targets.
        InvalidConfiguration: no key is pinned.
        NoDisk: the state folder cannot be written.
    """
    try:
        return _install(bundle, config)
    except OSError as error:
        raise NoDisk(
            f"cannot write the state folder {config.state_dir}: {error.strerror}"
        ) from error


def _install(bundle: Path, config: AgentConfig) -> ReleaseRef:
    keys = [signature.load_public_key(_read_key(path), str(path)) for path in config.sideload.keys]
    if not keys:
        raise InvalidConfiguration(
            "no key is pinned for side-loading; list public keys in [sideload] keys"
        )
    slots = Slots(config.state_dir)
    with tempfile.TemporaryDirectory(dir=config.state_dir) as temporary:
        folder = _unpacked(bundle, Path(temporary))
        data = folders.read_limited(folder / MANIFEST, MAX_MANIFEST_BYTES)
        signed = folders.read_limited(folder / SIGNATURE, signature.MAX_SIGNATURE_BYTES)
        manifest = trust.accept(data, signed, folders.read_provenance(folder), keys)
        folders.check(folder, manifest)
        ref = ReleaseRef(model=manifest.model, version=manifest.version, digest=sha256_bytes(data))
        if not _whole(slots, ref, config.target):
            slots.remove(ref.digest)
            try:
                _take(folder, slots.partial(ref.digest), manifest, data, config.target)
                slots.complete(ref.digest)
            except SerinusError:
                slots.discard(ref.digest)
                raise
    _activate(ref, slots, Journal(config.state_dir))
    return ref


def _whole(slots: Slots, ref: ReleaseRef, target: str) -> bool:
    if not slots.has(ref.digest):
        return False
    try:
        check_slot(slots.path(ref.digest), ref.digest, target)
    except InvalidBundle:
        return False
    return True


def _take(source: Path, folder: Path, manifest: Manifest, data: bytes, target: str) -> None:
    """Copy the bundle and judge the copy: whoever owns the source can change it at any time."""
    try:
        for path in needed_files(manifest, target):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            _copy(source / path, folder / path, manifest.file(path).size)
        (folder / MANIFEST).write_bytes(data)
        folders.check(folder, manifest, only=needed_files(manifest, target))
        self_test(LoadedRelease.open(folder, target))
        durable.sync_tree(folder)
    except OSError as error:
        raise InvalidBundle(f"cannot copy the bundle {source}: {error.strerror}") from error


def _copy(source: Path, target: Path, size: int) -> None:
    """Copy at most one byte more than the manifest says; the check then refuses it."""
    left = size + 1
    with source.open("rb") as reading, target.open("wb") as writing:
        while left and (chunk := reading.read(min(left, CHUNK_BYTES))):
            left -= len(chunk)
            writing.write(chunk)


def _activate(ref: ReleaseRef, slots: Slots, journal: Journal) -> None:
    """Name the release, and end what the journal stood in: its wish is not what serves now.

    The journal goes first, so that no cut lets one release be judged by another's trial.
    """
    entry, pointer = journal.read(), slots.pointer() or Pointer()
    desired = entry.desired
    reached = desired is not None and desired.active == ref and desired.shadow is None
    entry = Entry(
        state="committed" if reached else "failed" if desired else "idle",
        desired=desired,
        reason="" if reached else f"{ref.name} was installed by hand",
        refusals=entry.refusals,
        proven=entry.proven,
        boot=entry.boot,
    )
    journal.write(entry)
    if pointer.active != ref.digest:
        good = (entry.proven, pointer.active, pointer.previous)
        there = (d for d in good if d is not None and d != ref.digest and slots.has(d))
        slots.switch(Pointer(active=ref.digest, previous=next(there, None)))
    journal.write(msgspec.structs.replace(entry, proven=ref.digest))


def _read_key(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot read the pinned key {path}: {error.strerror}"
        ) from error


def _unpacked(bundle: Path, temporary: Path) -> Path:
    if bundle.is_dir():
        return bundle
    if not bundle.is_file():
        raise InvalidBundle(f"no bundle at {bundle}: name a bundle's folder or archive")
    folder = temporary / "bundle"
    archive.unpack(bundle, folder)
    return folder
