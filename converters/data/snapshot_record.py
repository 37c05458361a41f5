"""What a data snapshot says of itself: ``snapshot.json``, whose sha256 is the snapshot's id.

It names every file with its digest, so that one digest stands for all of the data.
"""

import re
from typing import Annotated, Literal

import msgspec

from converters.recipe import Setting
from edge_core.bundle.digest import sha256_bytes
from edge_core.bundle.manifest import DataSnapshot, Sha256
from edge_core.errors import InvalidInput, quoted

SNAPSHOT_VERSION = 1
SNAPSHOT = "snapshot.json"
MAX_SNAPSHOT_BYTES = 1024 * 1024
MAX_FILE_BYTES = 64 * 1024**3

_TABLE = re.compile(r"^(requests|recordings|samples|events/[a-z][a-z0-9_]{0,63})\Z")


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the description; unknown fields are refused."""


class ColumnRecord(_Record, frozen=True, kw_only=True):
    """One column of a table."""

    name: str
    dtype: str
    """As Arrow calls it, such as ``float`` (of 32 bits) or ``timestamp[us, tz=UTC]``."""
    unit: str = ""


class TableRecord(_Record, frozen=True, kw_only=True):
    """One table: one file."""

    columns: list[ColumnRecord]
    rows: Annotated[int, msgspec.Meta(ge=0)]
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_FILE_BYTES)]
    """Bytes of the file."""
    sha256: Sha256


class SnapshotRecord(_Record, frozen=True, kw_only=True):
    """The description of a snapshot."""

    version: int = SNAPSHOT_VERSION
    kind: Literal["log", "recordings"]
    name: str
    """What the model builder calls the data set."""
    source: str
    tables: Annotated[dict[str, TableRecord], msgspec.Meta(min_length=1, max_length=64)]
    first: str | None = None
    last: str | None = None
    """Time span of everything in it, ISO 8601; none where there are no wall-clock times."""
    settings: dict[str, Setting] | msgspec.UnsetType = msgspec.UNSET
    """Those of the release that the recipe's code read to choose the data; unset if it read none,
    or if no recipe's code offered it."""

    def __post_init__(self) -> None:
        odd = [name for name in self.tables if not _TABLE.match(name)]
        if odd:
            raise ValueError(f"{odd[0]!r} is no table of a snapshot")

    @property
    def id(self) -> str:
        """Sha256 of the canonical bytes."""
        return sha256_bytes(serialize(self))

    @property
    def files(self) -> dict[str, TableRecord]:
        """Path below the snapshot's folder -> table."""
        return {f"{name}.parquet": table for name, table in self.tables.items()}

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(table.size for table in self.tables.values())

    def lineage(self) -> DataSnapshot:
        """What a manifest says of it."""
        columns = {name: table.columns for name, table in self.tables.items()}
        return DataSnapshot(
            id=self.id,
            name=self.name,
            source=self.source,
            schema_sha256=sha256_bytes(msgspec.json.encode(columns, order="sorted")),
            rows={name: table.rows for name, table in sorted(self.tables.items())},
            first=self.first,
            last=self.last,
        )


class _Versioned(msgspec.Struct):
    version: int


def serialize(record: SnapshotRecord) -> bytes:
    """Canonical bytes: UTF-8 JSON, two-space indent, sorted keys, newline at the end."""
    return msgspec.json.format(msgspec.json.encode(record, order="sorted"), indent=2) + b"\n"


def parse(data: bytes) -> SnapshotRecord:
    """Parse a description.

    Raises:
        InvalidInput: not JSON, unknown version, a field is out of range, or not in canonical form.
    """
    try:
        version = msgspec.json.decode(data, type=_Versioned).version
        if version != SNAPSHOT_VERSION:
            raise InvalidInput(
                f"{SNAPSHOT} has version {version}; this Serinus reads {SNAPSHOT_VERSION}: "
                "update Serinus, or take the snapshot again"
            )
        found = msgspec.json.decode(data, type=SnapshotRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"{SNAPSHOT} is not valid: {quoted(error)}") from error
    if serialize(found) != data:
        raise InvalidInput(f"{SNAPSHOT} was altered: it is not in the form that it was written in")
    return found
