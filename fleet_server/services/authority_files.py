"""The authority's files in a backup: without them every device would have to be enrolled anew."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edge_core import durable
from edge_core.errors import InvalidConfiguration, Unavailable
from fleet_server.authority.ca_folder import (
    CERTIFICATE,
    KEY,
    NEXT_KEY,
    OLD_KEY,
    SERVER,
    CaFolder,
)
from fleet_server.services.errors import Conflict
from fleet_server.storage.archive import Archive, InvalidBackup, Table
from fleet_server.storage.encryption import WrongPassphrase, decrypt, encrypt
from fleet_server.storage.transfer import AUTHORITY

COLUMNS, ENCRYPTED = ["content", "file"], ["encrypted"]
NAMES = (CERTIFICATE, SERVER, NEXT_KEY, OLD_KEY, KEY)
"""In the order in which they are written: the key last, which makes an authority of the folder."""


class Secrecy(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup does with keys."""

    passphrase: bytes | None = None
    """They are encrypted with it."""
    plain: bool = False
    """Without a passphrase: whether they may be written as they are."""


def outgoing(folder: Path, secrecy: Secrecy) -> Iterator[Table]:
    """The files as a part of a backup; nothing where there is no authority yet.

    Raises:
        InvalidConfiguration: nobody said how its keys are to be kept.
        Unavailable: one cannot be read.
    """
    if not (folder / KEY).exists():
        return
    if secrecy.passphrase is None and not secrecy.plain:
        raise InvalidConfiguration(
            f"{folder} holds the key that certifies devices: encrypt it in the backup with "
            "--passphrase-file FILE, or let it be written as it is with --plain-keys"
        )
    try:
        with CaFolder(
            folder
        ).locked():  # keys change their names when one authority follows another
            files = [path for path in map(folder.joinpath, NAMES) if path.exists()]
            rows = [[path.read_bytes(), path.name] for path in files]
    except OSError as error:
        raise Unavailable(f"cannot read {error.filename}: {error.strerror}") from error
    if secrecy.passphrase is None:
        yield Table(name=AUTHORITY, columns=COLUMNS, rows=rows)
    else:
        encrypted = encrypt(msgspec.msgpack.encode(rows), secrecy.passphrase)
        yield Table(name=AUTHORITY, columns=ENCRYPTED, rows=[[encrypted]])


def incoming(archive: Archive, passphrase: bytes | None) -> dict[str, bytes]:
    """The files that a backup holds, by name.

    Raises:
        InvalidBackup: it holds others.
        InvalidConfiguration: they are encrypted, and not with this passphrase.
    """
    found: dict[str, bytes] = {}
    for part in archive.manifest.parts:
        if part.table != AUTHORITY:
            continue
        rows: Iterator[Sequence[Any]] = (row for frame in archive.rows(part) for row in frame)
        if part.columns == ENCRYPTED:
            rows = (row for entry in rows for row in _opened(next(iter(entry), None), passphrase))
        elif part.columns != COLUMNS:
            raise InvalidBackup("the backup's authority is of an unknown form")
        for content, name in rows:
            if name not in NAMES or not isinstance(content, bytes):
                raise InvalidBackup(f"the backup holds an unknown file {str(name)[:64]!r}")
            found[name] = content
    return found


def _opened(encrypted: object, passphrase: bytes | None) -> list[tuple[bytes, str]]:
    if passphrase is None:
        raise InvalidConfiguration("the keys in this backup are encrypted: name --passphrase-file")
    if not isinstance(encrypted, bytes):
        raise InvalidBackup("the backup's authority is of an unknown form")
    try:
        return msgspec.msgpack.decode(decrypt(encrypted, passphrase), type=list[tuple[bytes, str]])
    except msgspec.MsgspecError as error:
        raise InvalidBackup("the backup's authority is of an unknown form") from error
    except WrongPassphrase as error:
        raise InvalidConfiguration(
            "the keys in this backup are encrypted with another passphrase, or were altered"
        ) from error


def check(folder: Path, files: dict[str, bytes], *, force: bool) -> None:
    """Refuse to replace another authority unless it is forced; raise :class:`Conflict`."""
    key = folder / KEY
    if KEY in files and key.exists() and key.read_bytes() != files[KEY] and not force:
        raise Conflict(
            f"{key} is another authority's key than the backup's: name --force to replace it"
        )


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Put the files into their folder, readable by the server's user alone.

    Keys of a succession that the backup does not know of are removed.
    """
    if KEY not in files:
        return
    try:
        with CaFolder(folder).locked():
            for name in NAMES:
                if name in files:
                    mode = 0o644 if name == CERTIFICATE else 0o600
                    durable.write_bytes(folder / name, files[name], mode=mode)
            for name in {NEXT_KEY, OLD_KEY} - files.keys():
                (folder / name).unlink(missing_ok=True)
            durable.sync_folder(folder)
    except OSError as error:
        raise Unavailable(f"cannot write into {folder}: {error.strerror}") from error
