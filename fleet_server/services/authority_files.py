"""The authority's files in a backup: without them every device would have to be enrolled anew."""

from collections.abc import Iterator
from pathlib import Path

from edge_core import durable
from edge_core.errors import Unavailable
from fleet_server.ca_folder import CERTIFICATE, KEY, NEXT_KEY, OLD_KEY
from fleet_server.device_ca import SERVER
from fleet_server.services.errors import Conflict
from fleet_server.storage.archive import Archive, InvalidBackup, Table
from fleet_server.storage.transfer import AUTHORITY, Tell

COLUMNS = ["content", "file"]
NAMES = (CERTIFICATE, SERVER, NEXT_KEY, OLD_KEY, KEY)
"""In the order in which they are written: the key last, which makes an authority of the folder."""


def outgoing(folder: Path, tell: Tell) -> Iterator[Table]:
    """The files as a part of a backup; nothing where there is no authority yet.

    Raises:
        Unavailable: one cannot be read.
    """
    if not (folder / KEY).exists():
        return
    try:
        rows = [
            [path.read_bytes(), path.name] for path in map(folder.joinpath, NAMES) if path.exists()
        ]
    except OSError as error:
        raise Unavailable(f"cannot read {error.filename}: {error.strerror}") from error
    tell("the backup holds the key that certifies devices: keep it as secret as the server itself")
    yield Table(name=AUTHORITY, columns=COLUMNS, rows=rows)


def incoming(archive: Archive) -> dict[str, bytes]:
    """The files that a backup holds, by name.

    Raises:
        InvalidBackup: it holds others.
    """
    found: dict[str, bytes] = {}
    for part in archive.manifest.parts:
        if part.table != AUTHORITY:
            continue
        if part.columns != COLUMNS:
            raise InvalidBackup("the backup's authority is of an unknown form")
        for content, name in (row for frame in archive.rows(part) for row in frame):
            if name not in NAMES or not isinstance(content, bytes):
                raise InvalidBackup(f"the backup holds an unknown file {str(name)[:64]!r}")
            found[name] = content
    return found


def check(folder: Path, files: dict[str, bytes], *, force: bool) -> None:
    """Refuse to replace another authority unless it is forced; raise :class:`Conflict`."""
    key = folder / KEY
    if KEY in files and key.exists() and key.read_bytes() != files[KEY] and not force:
        raise Conflict(
            f"{key} is another authority's key than the backup's: name --force to replace it"
        )


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Put the files into their folder, readable by the server's user alone."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in NAMES:
            if name in files:
                mode = 0o644 if name == CERTIFICATE else 0o600
                durable.write_bytes(folder / name, files[name], mode=mode)
    except OSError as error:
        raise Unavailable(f"cannot write into {folder}: {error.strerror}") from error
