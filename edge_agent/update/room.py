"""Whether a release fits on this device's disk. The rule is pure; the measuring is beside it."""

import shutil
from pathlib import Path

import msgspec

from edge_core.errors import NoDisk

SPARE_BYTES = 1024 * 1024
"""Left free on the disk for journal, outbox and pointer."""


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on this device."""

    held: int
    """What all slots take, the one being collected included."""
    free: int
    """Free on the disk."""
    quota: int | None
    """What all slots may take; none for as much as the disk gives."""


def check(missing: int, room: Room, name: str) -> None:
    """See that the missing bytes of a release fit; nothing was fetched of them yet.

    Raises:
        NoDisk: they do not, with the numbers.
    """
    if room.quota is not None and room.held + missing > room.quota:
        raise NoDisk(
            f"{name} needs {missing} bytes more, {room.held} are taken, and [update] quota_bytes "
            f"is {room.quota}"
        )
    if missing and missing + SPARE_BYTES > room.free:
        raise NoDisk(
            f"{name} needs {missing} bytes more, and the disk has {room.free} free, of which "
            f"{SPARE_BYTES} stay spare"
        )


def measure(folder: Path, quota: int | None) -> Room:
    """Look at the slots' folder and its disk."""
    return Room(held=size_of(folder), free=shutil.disk_usage(folder).free, quota=quota)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; 0 where there is none."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
