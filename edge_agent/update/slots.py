"""Bundles on the device by digest, and the pointer that names the active one. No policy."""

import shutil
from collections.abc import Collection
from pathlib import Path

import msgspec

from edge_agent.update.sealing import seal, unseal
from edge_core import durable
from edge_core.messages.telemetry import Sha256

POINTER = "active.json"
POINTER_VERSION = 2
UNSEALED_VERSION = 1
"""Without a digest; otherwise the same."""


class Pointer(msgspec.Struct, frozen=True, kw_only=True):
    """Digests of the active release and of the one to go back to."""

    v: int = POINTER_VERSION
    active: Sha256 | None = None
    previous: Sha256 | None = None


class Slots:
    """The slot folders below one state folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "slots"
        self._pointer = folder / POINTER
        self._folder.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Folder of a complete, verified bundle."""
        return self._folder / digest

    def partial(self, digest: str) -> Path:
        """Folder in which a bundle is being collected."""
        return self._folder / f"{digest}.partial"

    def has(self, digest: str) -> bool:
        """Whether a complete bundle is there."""
        return self.path(digest).is_dir()

    def complete(self, digest: str) -> None:
        """Turn a collected bundle into a complete one, in one atomic step."""
        if not self.has(digest):
            self.partial(digest).replace(self.path(digest))
        durable.sync_folder(self._folder)

    def discard(self, digest: str) -> None:
        """Remove what was collected of a bundle that was refused."""
        shutil.rmtree(self.partial(digest), ignore_errors=True)

    def remove(self, digest: str) -> None:
        """Remove a bundle. A cut in the middle leaves half of a partial one, never of a slot."""
        self.discard(digest)
        if self.has(digest):
            self.path(digest).replace(self.partial(digest))
            durable.sync_folder(self._folder)
            self.discard(digest)

    def collect(self, keep: Collection[str]) -> None:
        """Remove every bundle that is not to be kept."""
        for digest in {folder.name.removesuffix(".partial") for folder in self._folder.iterdir()}:
            if digest not in keep:
                self.remove(digest)

    def digests(self) -> list[str]:
        """Digests of all complete bundles."""
        return sorted(f.name for f in self._folder.iterdir() if not f.name.endswith(".partial"))

    def pointer(self) -> Pointer | None:
        """Read the pointer; a corrupt or foreign one is none, and so is one that was lost.

        Where there is no slot either, it was never written and names nothing.

        Raises:
            OSError: it cannot be read now, so nobody may conclude that it names nothing.
        """
        try:
            body, sealed = unseal(self._pointer.read_bytes())
            pointer = msgspec.json.decode(body, type=Pointer)
        except FileNotFoundError:
            return None if self.digests() else Pointer()
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        if pointer.v != (POINTER_VERSION if sealed else UNSEALED_VERSION):
            return None
        return msgspec.structs.replace(pointer, v=POINTER_VERSION)

    def switch(self, pointer: Pointer) -> None:
        """Name another active release, atomically and durably."""
        durable.write_bytes(self._pointer, seal(msgspec.json.encode(pointer)))
