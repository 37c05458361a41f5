"""Tells input files apart without reading all of them.

Size, and sha256 of the first and the last bytes: for Parquet that is the whole footer, which has
the schema and the place, the size and the least and greatest value of every column's part. So it is
certain that another, longer, shorter or newly written file is noticed. A byte that was changed in
the middle of a file, and changes none of that, is not.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edge_core.errors import InvalidInput

ENDS_BYTES = 2**16
"""Of either end of a file."""
FOOTER_END = 8
"""A Parquet file ends with its footer's length, four bytes, and the letters PAR1."""


class FileMark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file."""

    name: str
    """Below the folder of the input."""
    size: int
    sha256: str
    """Of its beginning and end."""


def of(files: Sequence[Path], below: Path) -> list[FileMark]:
    """Marks of files, named by where they stand below a folder.

    Raises:
        InvalidInput: one cannot be read.
    """
    return [_mark(file, file.relative_to(below).as_posix()) for file in files]


def _mark(file: Path, name: str) -> FileMark:
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - FOOTER_END))
            last = stream.read(FOOTER_END)
            footer = int.from_bytes(last[:4], "little") if last.endswith(b"PAR1") else 0
            tail = min(size, max(ENDS_BYTES, footer + FOOTER_END))
            stream.seek(0)
            hasher = hashlib.sha256(stream.read(ENDS_BYTES))
            stream.seek(size - tail)
            hasher.update(stream.read(tail))
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}") from error
    return FileMark(name=name, size=size, sha256=hasher.hexdigest())
