"""Bundles on the device by digest, and the pointer that names the active one. No policy."""

import shutil
from collections.abc import Collection
from pathlib import Path

import msgspec

from edge_core import durable

POINTER = "active.json"
POINTER_VERSION = 1


class Pointer(msgspec.Struct, frozen=True, kw_only=True):
    """Digests of the active release and of the one to go back to."""

    v: int = POINTER_VERSION
    active: str | None = None
    previous: str | None = None


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

    def collect(self, keep: Collection[str]) -> None:
        """Remove every bundle that is not to be kept."""
        for folder in self._folder.iterdir():
            if folder.name.removesuffix(".partial") not in keep:
                shutil.rmtree(folder, ignore_errors=True)

    def digests(self) -> list[str]:
        """Digests of all complete bundles."""
        return sorted(f.name for f in self._folder.iterdir() if not f.name.endswith(".partial"))

    def pointer(self) -> Pointer:
        """Read the pointer; a missing, unreadable or foreign one names nothing."""
        try:
            pointer = msgspec.json.decode(self._pointer.read_bytes(), type=Pointer)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return Pointer()
        return pointer if pointer.v == POINTER_VERSION else Pointer()

    def switch(self, pointer: Pointer) -> None:
        """Name another active release, atomically and durably."""
        durable.write_bytes(self._pointer, msgspec.json.encode(pointer))
