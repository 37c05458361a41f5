"""The file format of backups: one tar with a manifest first, then one part for each table.

A part is gzip over frames; a frame is 4 bytes of length (big endian) and a msgpack list of rows, a
row a list of column values. Nothing in it belongs to one kind of database. The same rows make the
same bytes.
"""

import gzip
import hashlib
import io
import os
import struct
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from edge_core import durable
from edge_core.errors import SerinusError, Unavailable

VERSION = 1
MANIFEST = "manifest.json"
MAX_MANIFEST = 1024 * 1024
MAX_FRAME = 256 * 1024 * 1024
MAX_PARTS = 1000
FRAME_ROWS = 200
PIECE = 1024 * 1024
_LENGTH = struct.Struct(">I")


class InvalidBackup(SerinusError):
    """A file is no backup, is damaged, or belongs to a newer server."""


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table's rows as they lie in the archive."""

    table: str
    columns: list[str]
    rows: int
    size: int
    """Bytes, compressed."""
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a backup holds."""

    v: int = VERSION
    revision: str
    """Of the schema that the rows belong to."""
    made_ms: int
    parts: list[Part]


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table on its way into an archive."""

    name: str
    columns: list[str]
    rows: Iterable[Sequence[Any]]


def write(file: Path, revision: str, made_ms: int, tables: Iterable[Table]) -> Manifest:
    """Write an archive durably: a file of that name is whole, or is not there.

    Raises:
        Unavailable: the file cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as place:
            folder = Path(place)
            parts = [_write_part(folder, table) for table in tables]
            manifest = Manifest(revision=revision, made_ms=made_ms, parts=parts)
            whole = folder / "whole"
            _pack(whole, manifest, folder)
            whole.replace(file)
        durable.sync_folder(file.parent)
    except OSError as error:
        raise Unavailable(f"cannot write the backup {file}: {error.strerror}") from error
    return manifest


def _write_part(folder: Path, table: Table) -> Part:
    path, rows, frame = folder / table.name, 0, []
    with (
        path.open("wb") as stream,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=stream, mtime=0) as packed,
    ):
        for row in table.rows:
            frame.append(list(row))
            rows += 1
            if len(frame) == FRAME_ROWS:
                _write_frame(packed, frame)
                frame = []
        if frame:
            _write_frame(packed, frame)
    size, digest = _measure(path)
    return Part(table=table.name, columns=table.columns, rows=rows, size=size, sha256=digest)


def _write_frame(packed: gzip.GzipFile, frame: list[list[Any]]) -> None:
    data = msgspec.msgpack.encode(frame)
    packed.write(_LENGTH.pack(len(data)) + data)


def _pack(whole: Path, manifest: Manifest, folder: Path) -> None:
    descriptor = os.open(whole, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
            text = msgspec.json.format(msgspec.json.encode(manifest))
            tar.addfile(_member(MANIFEST, len(text)), io.BytesIO(text))
            for part in manifest.parts:
                with (folder / part.table).open("rb") as data:
                    tar.addfile(_member(part.table, part.size), data)
                (folder / part.table).unlink()
        stream.flush()
        os.fsync(stream.fileno())


def _member(name: str, size: int) -> tarfile.TarInfo:
    """An entry that says nothing of when and by whom it was made."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o600
    return entry


def _measure(path: Path) -> tuple[int, str]:
    with path.open("rb") as stream:
        return path.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()


class Archive:
    """A backup that was checked: every part is there, whole and unchanged."""

    def __init__(self, file: Path) -> None:
        """Open and check it.

        Raises:
            InvalidBackup: it is no backup, damaged, or of an unknown version.
            Unavailable: it cannot be read.
        """
        self._file = file
        try:
            self._tar = tarfile.open(file, "r:")  # noqa: SIM115  # closed by close()
        except (tarfile.TarError, EOFError) as error:
            raise InvalidBackup(f"{file} is no backup of a server: {error}") from error
        except OSError as error:
            raise Unavailable(f"cannot read the backup {file}: {error.strerror}") from error
        try:
            self.manifest = self._read_manifest()
            self._members = self._check()
        except (tarfile.TarError, EOFError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            self.close()
            raise InvalidBackup(f"the backup {file} is damaged: {error}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._tar.close()

    def rows(self, part: Part) -> Iterator[list[list[Any]]]:
        """A part's rows in frames.

        Raises:
            InvalidBackup: what was packed is not what the format says.
        """
        count = 0
        try:
            with gzip.GzipFile(fileobj=self._open(self._members[part.table])) as packed:
                while head := packed.read(_LENGTH.size):
                    (length,) = _LENGTH.unpack(head)
                    if length > MAX_FRAME:
                        raise self._damaged(part, f"a frame of {length} bytes")
                    frame = msgspec.msgpack.decode(packed.read(length), type=list[list[Any]])
                    count += len(frame)
                    if any(len(row) != len(part.columns) for row in frame):
                        raise self._damaged(part, "a row of another width")
                    yield frame
        except (OSError, EOFError, msgspec.MsgspecError, struct.error, ValueError) as error:
            raise self._damaged(part, str(error)) from error
        if count != part.rows:
            raise self._damaged(part, f"{count} rows, not {part.rows}")

    def _read_manifest(self) -> Manifest:
        first = self._tar.next()
        if first is None or first.name != MANIFEST or first.size > MAX_MANIFEST:
            raise InvalidBackup(f"{self._file} is no backup of a server: it has no manifest")
        text = self._open(first).read()
        version = msgspec.json.decode(text, type=_Versioned).v
        if version != VERSION:
            raise InvalidBackup(
                f"the backup {self._file} has format {version}, this server reads {VERSION}: "
                "restore it with the server version that wrote it"
            )
        return msgspec.json.decode(text, type=Manifest)

    def _check(self) -> dict[str, tarfile.TarInfo]:
        """Compare every part with its digest, before anything is made of one."""
        wanted = {part.table: part for part in self.manifest.parts}
        found: dict[str, tarfile.TarInfo] = {}
        while (entry := self._tar.next()) is not None:
            part = wanted.get(entry.name)
            if part is None or entry.name in found or len(found) > MAX_PARTS:
                raise InvalidBackup(f"the backup {self._file} holds an unknown {entry.name[:64]!r}")
            if entry.size != part.size or self._digest(entry) != part.sha256:
                raise self._damaged(part, "its digest is another")
            found[entry.name] = entry
        for name in wanted.keys() - found.keys():
            raise self._damaged(wanted[name], "it is missing")
        return found

    def _digest(self, entry: tarfile.TarInfo) -> str:
        digest, stream = hashlib.sha256(), self._open(entry)
        while piece := stream.read(PIECE):
            digest.update(piece)
        return digest.hexdigest()

    def _open(self, entry: tarfile.TarInfo) -> IO[bytes]:
        stream = self._tar.extractfile(entry) if entry.isreg() else None
        if stream is None:
            raise InvalidBackup(f"the backup {self._file} holds something that is no file")
        return stream

    def _damaged(self, part: Part, why: str) -> InvalidBackup:
        return InvalidBackup(f"the backup {self._file} is damaged in {part.table[:64]}: {why}")


class _Versioned(msgspec.Struct):
    v: int
