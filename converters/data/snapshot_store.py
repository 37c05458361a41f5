"""A store of data snapshots, each in a folder named by its id. Nothing in it is ever changed."""

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from converters import cache
from converters.data import snapshot_folder
from converters.data.snapshot_record import SnapshotRecord
from edge_core import durable
from edge_core.errors import InvalidInput, SerinusError

LOCK = ".lock"
PARTIAL = ".new-"
"""Begins the name of a snapshot that is being written."""

_ID = re.compile(r"^[0-9a-f]{64}\Z")
_SHORT = re.compile(r"^[0-9a-f]{8,64}\Z")


class Stored(NamedTuple):
    """A snapshot and where it lies."""

    folder: Path
    record: SnapshotRecord

    def digest(self) -> str:
        """The snapshot's id."""
        return self.record.id


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the store; a damaged one has no record, and says why."""

    id: str
    record: SnapshotRecord | None
    damage: str


class Store:
    """Snapshots below one folder, shared by processes side by side."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, write: Callable[[Path], SnapshotRecord]) -> Stored:
        """Keep a snapshot, unless it is there already; a damaged one is replaced.

        One process writes at a time. What it wrote counts from its last rename on; what a killed
        one left is removed by the next.

        Args:
            write: fills an empty folder.

        Raises:
            OSError: no room, or no right to write; nothing is left then.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._alone():
                return self._added(write)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(error.errno, reason, f"data store {self.folder}") from error

    def find(self, name: str) -> Stored:
        """A snapshot by its id, by at least 8 digits of it, or by its folder, anywhere.

        Its files are not looked at yet.

        Raises:
            InvalidInput: there is none, or several; or its description is damaged.
        """
        if (folder := Path(name)).is_dir():
            return Stored(folder, snapshot_folder.read_record(folder))
        found = [entry for entry in self._ids() if _SHORT.match(name) and entry.startswith(name)]
        if len(found) != 1:
            told = f"{len(found)} begin so" if found else "serinus-convert snapshots lists them"
            raise InvalidInput(f"no data snapshot {name} in {self.folder}: {told}")
        place = self.folder / found[0]
        return Stored(place, snapshot_folder.read_record(place, found[0]))

    def has(self, snapshot: str) -> bool:
        """Whether there is a snapshot of this id, whole or damaged."""
        return snapshot in self._ids()

    def everything(self) -> list[Listed]:
        """All entries, in order of ids; of the files only the sizes are looked at."""
        return [self._listed(name) for name in self._ids()]

    def _added(self, write: Callable[[Path], SnapshotRecord]) -> Stored:
        for leftover in self.folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(leftover)
        temporary = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=self.folder))
        try:
            record = write(temporary)
            place = self.folder / record.id
            if not _whole(place, record):
                temporary.chmod(0o755)
                durable.sync_tree(temporary)
                if place.exists():
                    place.replace(Path(tempfile.mkdtemp(prefix=PARTIAL, dir=self.folder)))
                temporary.replace(place)
                durable.sync_folder(self.folder)
            return Stored(place, record)
        finally:
            for leftover in self.folder.glob(f"{PARTIAL}*"):
                shutil.rmtree(leftover, ignore_errors=True)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.folder / LOCK).open("w") as lock:  # closing it lets go, also after a kill
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _ids(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if _ID.match(path.name))

    def _listed(self, name: str) -> Listed:
        folder = self.folder / name
        try:
            record = snapshot_folder.read_record(folder, name)
        except SerinusError as error:
            return Listed(id=name, record=None, damage=str(error))
        for path, table in record.files.items():
            if not (folder / path).is_file() or (folder / path).stat().st_size != table.size:
                return Listed(id=name, record=record, damage=f"{path} is missing or not whole")
        return Listed(id=name, record=record, damage="")


def _whole(place: Path, record: SnapshotRecord) -> bool:
    if not place.is_dir():
        return False
    try:
        snapshot_folder.check(place, snapshot_folder.read_record(place, record.id))
    except SerinusError:
        return False
    return True


def default_folder(stages: Path | None = None) -> Path:
    """``$SERINUS_DATA``, else ``data`` beside or below the folder of finished stages.

    Args:
        stages: that folder, where it is not the usual one.
    """
    if named := os.environ.get("SERINUS_DATA"):
        return Path(named)
    if stages is not None:
        return stages / "data"
    usual = cache.default_folder()
    return usual / "data" if os.environ.get("SERINUS_CACHE") else usual.with_name("data")
