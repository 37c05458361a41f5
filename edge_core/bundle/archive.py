"""One file for carrying a bundle by hand: an uncompressed tar with the same bytes every time.

Uncompressed, because model files hardly shrink, and so that nothing can grow while unpacking.
"""

import io
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edge_core import durable
from edge_core.bundle.manifest import MANIFEST, MAX_FILE_BYTES, MAX_FILES, FileEntry
from edge_core.errors import InvalidBundle

MAX_ARCHIVE_BYTES = 512 * 1024 * 1024
MAX_MEMBERS = MAX_FILES + 3
"""Manifest, signature and provenance stand beside the listed files."""


def pack(folder: Path, destination: Path) -> None:
    """Write the folder's files in order of their paths, without owners, times or modes.

    Raises:
        InvalidBundle: not a bundle folder, or one that :func:`unpack` would refuse.
    """
    if not (folder / MANIFEST).is_file():
        raise InvalidBundle(f"{folder} has no {MANIFEST}: name a bundle's folder")
    stream = io.BytesIO()
    try:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for member in _packed(folder):
                with (folder / member.name).open("rb") as content:
                    archive.addfile(member, content)
    except ValueError as error:
        raise InvalidBundle(f"cannot pack {folder}: {error}") from error
    except OSError as error:
        raise InvalidBundle(f"cannot pack {folder}: {error.strerror or error}") from error
    durable.write_bytes(destination, stream.getvalue())


def _packed(folder: Path) -> list[tarfile.TarInfo]:
    members = []
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not path.is_file():
            raise InvalidBundle(f"{name} is not a plain file; a bundle holds no others")
        member = tarfile.TarInfo(FileEntry(path=name, size=0, sha256="0" * 64).path)
        member.size = path.stat().st_size
        if member.size > MAX_FILE_BYTES:
            raise InvalidBundle(f"{name} has {member.size} bytes; the limit is {MAX_FILE_BYTES}")
        members.append(member)
    if len(members) > MAX_MEMBERS:
        raise InvalidBundle(f"{folder} has more than {MAX_MEMBERS} files")
    total = sum(member.size for member in members)
    if total > MAX_ARCHIVE_BYTES - 1024 * MAX_MEMBERS:
        raise InvalidBundle(f"{folder} has {total} bytes; the limit is {MAX_ARCHIVE_BYTES}")
    return members


def unpack(archive: Path, destination: Path) -> None:
    """Unpack into a new folder, which appears only when it is whole.

    Raises:
        InvalidBundle: not a tar, truncated, too large, or with members that are not plain files
            below the folder: links, devices, absolute paths, ``..``, twice the same name.
    """
    if destination.exists():
        raise InvalidBundle(f"{destination} exists already; name a folder that does not")
    temporary = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    try:
        _extract(archive, temporary)
        temporary.chmod(0o755)
        temporary.replace(destination)
        durable.sync_folder(destination.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _BoundedFile(io.FileIO):
    """A file that no forged length in a header can make it allocate more than itself for."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most ``size`` bytes, and at most the archive limit."""
        return super().read(
            MAX_ARCHIVE_BYTES if size is None or size < 0 else min(size, MAX_ARCHIVE_BYTES)
        )


def _extract(archive: Path, folder: Path) -> None:
    try:
        size = archive.stat().st_size
        if size > MAX_ARCHIVE_BYTES:
            raise InvalidBundle(
                f"{archive.name} has {size} bytes; the limit is {MAX_ARCHIVE_BYTES}"
            )
        # "r:" accepts no compression, so a member can never be larger than its archive.
        with _BoundedFile(archive) as raw, tarfile.open(fileobj=raw, mode="r:") as opened:
            for member in _plain_members(opened):
                target = folder / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                content = opened.extractfile(member)
                assert content is not None  # _plain_members lets only regular files through
                data = content.read()
                if len(data) != member.size:
                    raise InvalidBundle(f"{archive.name} is truncated inside {member.name}")
                durable.write_bytes(target, data)
        _check_end(archive, size)
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidBundle(f"{archive.name} is not a whole bundle archive: {error}") from error
    except OSError as error:
        raise InvalidBundle(f"cannot unpack {archive}: {error.strerror or error}") from error


def _plain_members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    seen: set[str] = set()
    for count, member in enumerate(archive, start=1):
        if count > MAX_MEMBERS:
            raise InvalidBundle(f"archive has more than {MAX_MEMBERS} members")
        if not member.isreg() or member.issparse():
            raise InvalidBundle(f"archive member {member.name!r} is not a plain file")
        if member.size > MAX_FILE_BYTES:
            raise InvalidBundle(f"archive member {member.name!r} has {member.size} bytes")
        # FileEntry refuses absolute paths, "..", hidden and odd names.
        FileEntry(path=member.name, size=member.size, sha256="0" * 64)
        if member.name.lower() in seen:
            raise InvalidBundle(f"archive member {member.name!r} comes twice")
        seen.add(member.name.lower())
        yield member


def _check_end(archive: Path, size: int) -> None:
    """Refuse an archive that was cut between two members or inside its end marker."""
    marker = 2 * tarfile.BLOCKSIZE
    with archive.open("rb") as stream:
        stream.seek(max(0, size - marker))
        if size % tarfile.RECORDSIZE or stream.read() != bytes(marker):
            raise InvalidBundle(f"{archive.name} is truncated: its end marker is missing")
