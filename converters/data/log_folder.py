"""Logs of events and requests on disk: what training, backfill, scoring and parity replay.

A folder holds ``requests`` and ``events/<stream>``, each ``.parquet``, ``.csv`` or a folder of
such files. Requests have a column for each field of the definition's request; events have theirs
and ``event_time``, ``sequence`` and ``arrival``. Moments are int64 microseconds since 1970 UTC, or
timestamps with a time zone. Other columns are let be.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from converters.data import tables
from converters.data.tables import Column, Table
from edge_core.errors import InvalidInput, quoted
from edge_core.features.logs import Events, Log
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.requests import FieldType, Number, Time

REQUESTS = "requests"
EVENTS = "events"
EVENT_TIME, SEQUENCE, ARRIVAL = "event_time", "sequence", "arrival"
STAMPS: tuple[FieldType, ...] = tuple(Time(name=name) for name in (EVENT_TIME, SEQUENCE, ARRIVAL))
MAX_ROWS = 50_000_000
"""Of a log that is read at once."""

Int64 = npt.NDArray[np.int64]


class Piece(NamedTuple):
    """A part of a log: everything that came within some span of time."""

    log: Log
    also: Mapping[str, Any]
    """Further columns of the requests as pyarrow arrays, by name."""
    taken: Mapping[str, int]
    """Rows of each table up to the end of this piece; :meth:`LogFolder.pieces` goes on there."""


class LogFolder:
    """A log of one definition's events and requests."""

    def __init__(
        self, folder: Path, definition: RequestDefinition, also: Sequence[str] = ()
    ) -> None:
        """Look at its files and their columns; nothing is read yet.

        Args:
            folder: of the log.
            definition: of the features.
            also: further columns of the requests to pass on.

        Raises:
            InvalidInput: no such folder, or a file is missing, damaged or does not fit.
            Unavailable: pyarrow is not installed.
        """
        if not folder.is_dir():
            raise InvalidInput(
                f"{folder} is no folder; a log of requests is one, with {REQUESTS}.parquet and "
                f"{EVENTS}/<stream>.parquet in it"
            )
        self.folder = folder
        self.definition = definition
        self._tables = {REQUESTS: _table(folder, REQUESTS, definition.request.fields, also)}
        for stream in definition.streams:
            fields = _with_stamps(stream.name, stream.fields)
            name = f"{EVENTS}/{stream.name}"
            self._tables[name] = _table(folder, name, fields)

    @property
    def files(self) -> list[Path]:
        """All of them, in order."""
        return [file for table in self._tables.values() for file in table.files]

    @property
    def rows(self) -> int:
        """Of all tables; of a ``.csv`` about how many."""
        return sum(table.rows for table in self._tables.values())

    @property
    def also_types(self) -> dict[str, Any]:
        """Types of the requests' further columns, as pyarrow names them."""
        return self._tables[REQUESTS].also_types

    def read(self) -> Piece:
        """Everything at once, in the files' order, which may be any.

        Raises:
            InvalidInput: damaged, or too large for that.
        """
        whole: dict[str, _Rows] = {}
        for name, table in self._tables.items():
            rows = _Rows.empty(table)
            parts = [rows]
            for batch in table.pieces():
                parts.append(_Rows.of(table, batch))
                if sum(map(len, parts)) > MAX_ROWS:
                    raise InvalidInput(
                        f"{table.name} has more than {MAX_ROWS} rows; read it in pieces"
                    )
            whole[name] = _joined(parts)
        return self._piece(whole, {name: len(rows) for name, rows in whole.items()})

    def pieces(
        self, taken: Mapping[str, int] | None = None, rows: int = tables.PIECE_ROWS
    ) -> Iterator[Piece]:
        """Spans of time one after the other, in constant memory.

        Each table has to be in order: requests of their time, events of their arrival. What has
        one moment stands in one piece.

        Args:
            taken: rows of each table to leave out, as a piece before says.
            rows: about how many rows of a table a piece holds.

        Raises:
            InvalidInput: damaged, or not in order.
        """
        done = dict.fromkeys(self._tables, 0) | dict(taken or {})
        sources = {
            name: _Source(table, self._moment(name), table.pieces(skip=done[name], rows=rows))
            for name, table in self._tables.items()
        }
        while True:
            for source in sources.values():
                source.fill()
            until = min(source.complete_before for source in sources.values())
            part = {name: source.take(until) for name, source in sources.items()}
            if any(map(len, part.values())):
                done = {name: done[name] + len(rows) for name, rows in part.items()}
                yield self._piece(part, done)
            elif until == math.inf:
                return
            else:
                # One moment fills all that was read of the source that ends first.
                min(sources.values(), key=lambda source: source.complete_before).fill(more=True)

    def requests(self, first: int, rows: int) -> tuple[Mapping[str, Column], Mapping[str, Any]]:
        """Some requests by their place, and their further columns; fewer where the log ends.

        Raises:
            InvalidInput: damaged.
        """
        table = self._tables[REQUESTS]
        parts = [_Rows.empty(table)]
        for batch in table.pieces(skip=first):
            parts.append(_Rows.of(table, batch.slice(0, rows)))
            rows -= len(parts[-1])
            if not rows:
                break
        found = _joined(parts)
        return found.columns, found.also

    def _moment(self, name: str) -> str:
        return self.definition.request.time if name == REQUESTS else ARRIVAL

    def _piece(self, rows: Mapping[str, "_Rows"], taken: Mapping[str, int]) -> Piece:
        events = {
            name.removeprefix(f"{EVENTS}/"): _events(found.columns)
            for name, found in rows.items()
            if name != REQUESTS
        }
        return Piece(Log(events, rows[REQUESTS].columns), rows[REQUESTS].also, taken)


def write(
    folder: Path, definition: RequestDefinition, log: Log, also: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write a log as Parquet, the requests' further columns with it.

    Rows are put in order of time and of arrival, so that the log can be read in pieces.

    Returns:
        The files.

    Raises:
        InvalidInput: events of a stream that the definition has not, or values that do not fit.
    """
    known = [stream.name for stream in definition.streams]
    if unknown := log.events.keys() - set(known):
        raise InvalidInput(
            f"unknown stream {min(unknown)}; the definition has {', '.join(known) or 'none'}"
        )
    (folder / EVENTS).mkdir(parents=True, exist_ok=True)
    path = folder / f"{REQUESTS}.parquet"
    requests = _typed(definition.request.fields, log.request, also or {})
    tables.write(path, _ordered(requests, definition.request.time))
    written = [path]
    for stream in definition.streams:
        given = log.events.get(stream.name) or Events(
            [], [], [], {field.name: [] for field in stream.fields}
        )
        stamps = zip((EVENT_TIME, SEQUENCE, ARRIVAL), given[:3], strict=True)
        fields = [*STAMPS, *stream.fields]
        path = folder / EVENTS / f"{stream.name}.parquet"
        events = _typed(fields, dict(stamps) | dict(given.fields), {})
        tables.write(path, _ordered(events, ARRIVAL))
        written.append(path)
    return written


def _typed(fields: Sequence[FieldType], given: Mapping[str, Any], also: Mapping[str, Any]) -> Any:
    import pyarrow as pa

    schema, arrays = [], []
    for field in fields:
        kind, unit = pa.string(), None
        if isinstance(field, Number):
            kind, unit = pa.float32(), {tables.UNIT: field.unit.encode()}
        elif isinstance(field, Time):
            # Sequence numbers are no moments.
            kind = pa.int64() if field.name == SEQUENCE else pa.timestamp("us", tz="UTC")
        schema.append(pa.field(field.name, kind, metadata=unit))
        arrays.append(_array(field, given, kind))
    for name, column in also.items():
        arrays.append(pa.array(column))
        schema.append(pa.field(name, arrays[-1].type))
    if len(lengths := {len(column) for column in arrays}) > 1:
        raise InvalidInput(f"columns have different lengths: {', '.join(map(str, lengths))}")
    return pa.Table.from_arrays(arrays, schema=pa.schema(schema))


def _ordered(table: Any, moment: str) -> Any:
    """By one column; rows of the same moment as they came."""
    from pyarrow import compute

    return table.take(compute.sort_indices(table, [(moment, "ascending")]))


def _array(field: FieldType, given: Mapping[str, Any], kind: Any) -> Any:
    """A column as Parquet holds it; numpy's numbers are rounded as the evaluator rounds them."""
    import pyarrow as pa

    if field.name not in given:
        raise InvalidInput(f"field {field.name} is missing; there are {', '.join(given)}")
    column = given[field.name]
    try:
        if isinstance(column, np.ndarray) and column.dtype.kind in "biuf":
            with np.errstate(over="ignore"):  # becomes infinity, which the evaluator refuses
                if isinstance(field, Number):
                    column = column.astype(np.float32)
                elif isinstance(field, Time):
                    column = column.astype(np.int64, casting="same_kind")
        return pa.array(column, type=kind)
    except (ValueError, TypeError, NotImplementedError) as error:  # pyarrow's errors are among them
        raise InvalidInput(f"field {field.name}: {quoted(error)}") from error


def _table(folder: Path, name: str, fields: Sequence[FieldType], also: Sequence[str] = ()) -> Table:
    there = [kind for kind in ("", *tables.KINDS) if (folder / f"{name}{kind}").exists()]
    if len(there) > 1:
        raise InvalidInput(
            f"{folder} has {' and '.join(f'{name}{kind}' for kind in there)}; leave one of them "
            "there, so that it is certain which is read"
        )
    return Table(folder / name, fields, also)


def _with_stamps(stream: str, fields: Sequence[FieldType]) -> list[FieldType]:
    clash = {field.name for field in fields} & {stamp.name for stamp in STAMPS}
    if clash:
        raise InvalidInput(
            f"stream {stream} has a field {min(clash)}, which in a log names its events' stamps; "
            "rename the field"
        )
    return [*STAMPS, *fields]


def _events(columns: Mapping[str, Column]) -> Events:
    names = {stamp.name for stamp in STAMPS}
    fields = {name: column for name, column in columns.items() if name not in names}
    times, sequence, arrived = (np.asarray(columns[stamp.name], np.int64) for stamp in STAMPS)
    return Events(times, sequence, arrived, fields)


class _Rows(NamedTuple):
    columns: Mapping[str, Column]
    also: Mapping[str, Any]

    @classmethod
    def of(cls, table: Table, batch: Any) -> "_Rows":
        return cls(table.columns(batch), {name: batch.column(name) for name in table.also})

    @classmethod
    def empty(cls, table: Table) -> "_Rows":
        columns: dict[str, Column] = {}
        for name, field in table.fields.items():
            kind = np.float32 if isinstance(field, Number) else np.int64
            columns[name] = np.empty(0, kind) if isinstance(field, Number | Time) else []
        return cls(columns, {})

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def split(self, place: int) -> tuple["_Rows", "_Rows"]:
        first = {name: column[:place] for name, column in self.columns.items()}
        rest = {name: column[place:] for name, column in self.columns.items()}
        also = {name: column[:place] for name, column in self.also.items()}
        left = {name: column[place:] for name, column in self.also.items()}
        return _Rows(first, also), _Rows(rest, left)


def _joined(parts: Sequence[_Rows]) -> _Rows:
    import pyarrow as pa

    full = [part for part in parts if len(part)]
    if len(full) < 2:
        return full[0] if full else parts[0]
    columns: dict[str, Column] = {}
    for name, first in full[0].columns.items():
        columns[name] = (
            [text for part in full for text in part.columns[name]]
            if isinstance(first, list)
            else np.concatenate([part.columns[name] for part in full])
        )
    also = {name: pa.concat_arrays([part.also[name] for part in full]) for name in full[0].also}
    return _Rows(columns, also)


class _Source:
    """One table's rows that were read and not yet taken."""

    def __init__(self, table: Table, moment: str, batches: Iterator[Any]) -> None:
        self._table = table
        self._moment = moment
        self._batches = batches
        self._rows = _Rows.empty(table)
        self._ended = False
        self._newest = -math.inf

    @property
    def complete_before(self) -> float:
        """All rows before this moment were read."""
        return math.inf if self._ended else self._newest

    def fill(self, *, more: bool = False) -> None:
        """Read on where nothing waits, or where more is needed."""
        if self._ended or (len(self._rows) and not more):
            return
        batch = next(self._batches, None)
        if batch is None:
            self._ended = True
            return
        fresh = _Rows.of(self._table, batch)
        moments = np.asarray(fresh.columns[self._moment], np.int64)
        if moments[0] < self._newest or (np.diff(moments) < 0).any():
            raise InvalidInput(
                f"{self._table.name} is not in order of {self._moment}; sort it by that column"
            )
        self._newest = int(moments[-1])
        self._rows = _joined([self._rows, fresh])

    def take(self, until: float) -> _Rows:
        """Rows before a moment."""
        moments = np.asarray(self._rows.columns[self._moment], np.int64)
        place = len(moments) if until == math.inf else int(np.searchsorted(moments, until))
        first, self._rows = self._rows.split(place)
        return first
