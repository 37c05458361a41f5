"""A data snapshot on disk: Parquet files and the description that names their digests.

The same data gives the same bytes and so the same id, with one version of pyarrow
(:func:`converters.data.tables.write`). What a release is held to is therefore the digest of the
rows that were made from it (``DatasetRecord.sha256``), which depends on no file format.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np

from converters.data import log_folder, recordings_folder, snapshot_record, tables
from converters.data.dataset import LabelledLog, LabelledRecording, span
from converters.data.log_folder import EVENTS, REQUESTS, LogFolder
from converters.data.recordings_folder import LABEL, RECORDINGS, ROLE, SAMPLES, SLICE
from converters.data.snapshot_record import (
    MAX_FILE_BYTES,
    MAX_SNAPSHOT_BYTES,
    SNAPSHOT,
    ColumnRecord,
    SnapshotRecord,
    TableRecord,
)
from converters.recipe import Setting
from edge_core.bundle import folder as folders
from edge_core.bundle.digest import sha256_bytes, sha256_file
from edge_core.errors import InvalidBundle, InvalidInput
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.window_definition import WindowDefinition

NONE: Mapping[str, Setting] = MappingProxyType({})


def write_log(
    folder: Path,
    definition: RequestDefinition,
    slices: Sequence[str],
    offered: LabelledLog,
    *,
    name: str,
    source: str,
    settings: Mapping[str, Setting] = NONE,
) -> SnapshotRecord:
    """Write a log with what came of its requests into an empty folder."""
    import pyarrow as pa

    also: dict[str, Any] = {
        LABEL: pa.array(offered.labels, pa.string()),
        ROLE: pa.array(offered.roles, pa.string()),
    }
    for one in slices:
        also[f"{SLICE}{one}"] = pa.array(offered.slices[one], pa.string())
    log_folder.write(folder, definition, offered.log, also)
    times = [offered.log.request[definition.request.time]]
    times += [events.times_us for events in offered.log.events.values()]
    moments = np.concatenate([np.asarray(part, np.int64) for part in times])
    first, last = span(moments)
    names = [REQUESTS, *(f"{EVENTS}/{stream.name}" for stream in definition.streams)]
    made = SnapshotRecord(
        kind="log",
        name=name,
        source=source,
        tables=_described(folder, names),
        first=first,
        last=last,
        settings=dict(settings) or msgspec.UNSET,
    )
    return _finished(folder, made)


def write_recordings(
    folder: Path,
    definition: WindowDefinition,
    slices: Sequence[str],
    recordings: Iterable[LabelledRecording],
    *,
    name: str,
    source: str,
    settings: Mapping[str, Setting] = NONE,
) -> SnapshotRecord:
    """Write recordings into an empty folder."""
    recordings_folder.write(folder, definition.inputs, slices, recordings)
    described = _described(folder, [RECORDINGS, SAMPLES])
    made = SnapshotRecord(
        kind="recordings",
        name=name,
        source=source,
        tables=described,
        settings=dict(settings) or msgspec.UNSET,
    )
    return _finished(folder, made)


def read_record(folder: Path, wanted: str | None = None) -> SnapshotRecord:
    """The description, without a look at the files.

    Args:
        folder: of the snapshot.
        wanted: the id that it has to have.

    Raises:
        InvalidInput: no snapshot, damaged, or another one.
    """
    try:
        data = folders.read_limited(folder / SNAPSHOT, MAX_SNAPSHOT_BYTES)
    except InvalidBundle as error:
        raise InvalidInput(f"no data snapshot: {error}") from error
    if wanted is not None and sha256_bytes(data) != wanted:
        raise InvalidInput(f"{folder / SNAPSHOT} was altered: its sha256 is not {wanted[:16]}")
    try:
        return snapshot_record.parse(data)
    except InvalidInput as error:
        raise InvalidInput(f"{folder}: {error}") from error


def check(folder: Path, record: SnapshotRecord) -> None:
    """Compare every file with the description before anything parses it.

    Raises:
        InvalidInput: names the file that is missing or differs.
    """
    for path, table in record.files.items():
        try:
            found = sha256_file(folder / path, limit=MAX_FILE_BYTES)
        except InvalidBundle as error:
            raise InvalidInput(f"data snapshot {record.id[:16]}: {error}") from error
        if found.size != table.size:
            raise InvalidInput(
                f"{folder / path} has {found.size} bytes, the snapshot's has {table.size}; bring "
                "the file back, or remove the snapshot and take it again"
            )
        if found.sha256 != table.sha256:
            raise InvalidInput(
                f"{folder / path} was altered: its sha256 is not the snapshot's; bring the file "
                "back, or remove the snapshot and take it again"
            )


def read_log(
    folder: Path,
    record: SnapshotRecord,
    definition: RequestDefinition,
    slices: Sequence[str],
) -> LabelledLog:
    """What :func:`write_log` wrote; the files are checked first.

    Raises:
        InvalidInput: damaged, or it lacks what the definition or the slices need.
    """
    check(folder, record)
    names = {one: f"{SLICE}{one}" for one in slices}
    log, also, _ = LogFolder(folder, definition, [LABEL, ROLE, *names.values()]).read()
    return LabelledLog(
        log=log,
        labels=_texts(also, LABEL),
        roles=_texts(also, ROLE),
        slices={one: _texts(also, column) for one, column in names.items()},
    )


def read_recordings(
    folder: Path,
    record: SnapshotRecord,
    definition: WindowDefinition,
    slices: Sequence[str],
) -> Iterator[LabelledRecording]:
    """What :func:`write_recordings` wrote; the files are checked first.

    Raises:
        InvalidInput: damaged, or it lacks what the definition or the slices need.
    """
    check(folder, record)
    return recordings_folder.read(folder, definition.inputs, slices)


def _texts(also: Mapping[str, Any], name: str) -> Any:
    column = also.get(name)
    return [] if column is None else column.to_pylist()


def _described(folder: Path, names: Sequence[str]) -> dict[str, TableRecord]:
    from pyarrow import parquet

    found = {}
    for name in names:
        path = folder / f"{name}.parquet"
        digest, schema = sha256_file(path, limit=MAX_FILE_BYTES), parquet.read_schema(path)
        found[name] = TableRecord(
            columns=[
                ColumnRecord(
                    name=column.name,
                    dtype=str(column.type),
                    unit=(column.metadata or {}).get(tables.UNIT, b"").decode(),
                )
                for column in schema
            ],
            rows=parquet.read_metadata(path).num_rows,
            size=digest.size,
            sha256=digest.sha256,
        )
    return found


def _finished(folder: Path, made: SnapshotRecord) -> SnapshotRecord:
    (folder / SNAPSHOT).write_bytes(snapshot_record.serialize(made))
    return made
