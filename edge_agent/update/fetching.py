"""Brings one release into its slot: manifest first, then only the files that this device needs."""

from pathlib import Path

from edge_agent.ports import ApprovedReleases
from edge_agent.tuf_client import part_of
from edge_agent.update import room
from edge_agent.update.slots import Slots
from edge_core import durable
from edge_core.bundle import folder as folders
from edge_core.bundle import manifest as manifests
from edge_core.bundle.digest import sha256_bytes
from edge_core.bundle.manifest import (
    FALLBACK,
    FEATURES,
    GOLDEN,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    REFERENCE,
    Manifest,
)
from edge_core.errors import InvalidBundle
from edge_core.release import ReleaseRef


def needed_files(manifest: Manifest, target: str) -> list[str]:
    """Paths that a device of this target needs."""
    return [FEATURES, REFERENCE, GOLDEN, FALLBACK, manifest.variant(target).path]


def check_slot(folder: Path, digest: str, target: str) -> None:
    """Compare a bundle on this device with the digest that names it.

    Raises:
        InvalidBundle: a byte is missing or wrong.
    """
    data = folders.read_limited(folder / MANIFEST, MAX_MANIFEST_BYTES)
    if sha256_bytes(data) != digest:
        raise InvalidBundle("the manifest changed on this device's disk")
    manifest = manifests.parse(data)
    folders.check(folder, manifest, only=needed_files(manifest, target))


class Fetcher:
    """Collects a bundle below ``slots/<digest>.partial`` and completes it. Both steps may rerun."""

    def __init__(
        self,
        repository: ApprovedReleases,
        slots: Slots,
        target: str,
        *,
        quota_bytes: int | None = None,
    ) -> None:
        self._repository = repository
        self._slots = slots
        self._target = target
        self._quota_bytes = quota_bytes

    def fetch(self, ref: ReleaseRef) -> None:
        """Fetch what is missing; the release has to be approved now even if nothing is missing.

        Raises:
            NoDisk: this device has no room for it.
            SerinusError: not approved, altered, for another target, or out of reach.
        """
        data = self._repository.manifest(ref)
        if self._slots.has(ref.digest):
            if self._whole(ref.digest):
                return
            # The disk damaged it, or a cut while it was removed: that is no fault of the release.
            self._slots.remove(ref.digest)
        manifest = manifests.parse(data)
        folder = self._slots.partial(ref.digest)
        folder.mkdir(exist_ok=True)
        needed = [manifest.file(path) for path in needed_files(manifest, self._target)]
        missing = [entry for entry in needed if not self._present(folder / entry.path, entry)]
        here = sum(_held(part_of(folder / entry.path)) for entry in missing)
        space = room.measure(folder.parent, self._quota_bytes)
        room.check(sum(entry.size for entry in missing) - here, space, ref.name)
        for entry in missing:
            self._repository.file(ref, entry, folder / entry.path)
        durable.write_bytes(folder / MANIFEST, data)

    def held(self, ref: ReleaseRef) -> int:
        """Bytes that were collected of a release so far."""
        return room.size_of(self._slots.partial(ref.digest))

    def cancel(self) -> None:
        """End what is being fetched, from another thread."""
        self._repository.cancel()

    def renew(self) -> None:
        """Allow fetching again."""
        self._repository.renew()

    def _whole(self, digest: str) -> bool:
        try:
            check_slot(self._slots.path(digest), digest, self._target)
        except InvalidBundle:
            return False
        return True

    @staticmethod
    def _present(path: Path, entry: manifests.FileEntry) -> bool:
        if not path.exists():
            return False
        try:
            folders.check_file(path, entry)
        except InvalidBundle:
            return False
        return True

    def complete(self, ref: ReleaseRef) -> None:
        """Check every byte that was collected against the manifest, then make it a slot.

        Raises:
            InvalidBundle: a byte is missing or wrong.
        """
        if self._slots.has(ref.digest):
            return
        folder = self._slots.partial(ref.digest)
        check_slot(folder, ref.digest, self._target)
        durable.sync_tree(folder)
        self._slots.complete(ref.digest)

    def clean(self) -> None:
        """Remove what was fetched and not taken."""
        self._repository.clean()


def _held(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
