"""Files of windows, samples, requests and events that a person has at hand.

``.npy`` and ``.npz`` hold whole windows, or a column for each field of a request. ``.csv`` and
``.jsonl`` hold a row each; names of columns are those of ``serinus-convert``: ``time_us`` and
``stream`` beside samples; ``event_time``, ``sequence`` and ``arrival`` beside an event's fields.
"""

import csv
import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidInput, quoted
from edge_core.features.logs import Events
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.requests import FieldType, Number, Stream, Time
from edge_core.features.window_definition import WindowDefinition

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

MAX_FILE_BYTES = 256 * 1024 * 1024
MAX_LINE_BYTES = 8 * 1024 * 1024
SAMPLES = "samples"
TIME, STREAM = "time_us", "stream"
EVENT_TIME, SEQUENCE, ARRIVAL = "event_time", "sequence", "arrival"
LARGEST_MOMENT = 2**63 - 1
ONE_STREAM = ""
"""Of a file whose samples all come from one sensor."""
NO_NUMBER = frozenset({"", "na", "n/a", "nan", "null"})
"""What a .csv writes where a number is missing."""


class Samples(NamedTuple):
    """Consecutive samples of one sensor."""

    times_us: Int64
    """int64 [n]."""
    values: Float32
    """float32 [n, inputs]."""


Windows = Float32 | Mapping[str, Samples]
"""Whole windows float32 [batch, samples, inputs], or samples by stream that windows are cut of."""


def windows(path: Path, definition: WindowDefinition) -> Windows:
    """What a model of sensor windows answers; raise :class:`InvalidInput`, with the file's name."""
    match path.suffix:
        case ".npy" | ".npz":
            return _whole(path, _arrays(path), definition)
        case ".csv":
            return _streams(path, _csv(path), definition)
        case ".jsonl":
            rows = [_window_of(path, number, line) for number, line in _lines(path)]
            try:
                return _whole(path, {SAMPLES: np.asarray(rows, np.float32)}, definition)
            except (TypeError, ValueError, OverflowError) as error:
                raise InvalidInput(
                    f"{path}: the windows are no arrays of numbers of one shape ({quoted(error)})"
                ) from error
        case _:
            raise _unknown_kind(path)


def requests(path: Path, definition: RequestDefinition, now_us: int) -> dict[str, Any]:
    """A column for each field of the request; raise :class:`InvalidInput`.

    Without the column of their time all are asked at ``now_us``.
    """
    columns = _columns(path)
    time, fields = definition.request.time, definition.request.fields
    given = next((field for field in fields if field.name in columns), None)
    if given is not None and time not in columns:
        rows = len(_column(path, given, columns[given.name]))
        columns = {**columns, time: [now_us] * rows}
    return _fields(path, columns, fields, ())


def events(path: Path, stream: Stream) -> Events:
    """Events of a stream; without ``arrival`` each came at its own time."""
    stamps: tuple[Time, ...] = (Time(name=EVENT_TIME), Time(name=SEQUENCE))
    columns = _columns(path)
    if ARRIVAL in columns:
        stamps = (*stamps, Time(name=ARRIVAL))
    found = _fields(path, columns, stream.fields, stamps)
    times, sequence = found.pop(EVENT_TIME), found.pop(SEQUENCE)
    arrived = found.pop(ARRIVAL, times)
    return Events(times, sequence, arrived, found)


def _unknown_kind(path: Path) -> InvalidInput:
    return InvalidInput(
        f"{path} is of no known kind; give a .npy, .npz, .csv or .jsonl (an object a line)"
    )


def _data(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise InvalidInput(f"{path} has more than {MAX_FILE_BYTES} bytes; split it")
    return data


def _text(path: Path) -> str:
    try:
        return _data(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is no UTF-8 text: {error}") from error


def _arrays(path: Path) -> dict[str, Any]:
    try:
        content = np.load(io.BytesIO(_data(path)), allow_pickle=False)
        if isinstance(content, np.ndarray):
            return {SAMPLES: content}
        with content:
            held = sum(entry.file_size for entry in content.zip.infolist())
            if held > MAX_FILE_BYTES:
                raise InvalidInput(f"{path} holds {held} bytes; the limit is {MAX_FILE_BYTES}")
            return {name: content[name] for name in content}
    except (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile, SyntaxError) as error:
        raise InvalidInput(f"{path} holds no arrays of numbers: {quoted(error)}") from error


def _whole(path: Path, arrays: Mapping[str, Any], definition: WindowDefinition) -> Float32:
    if SAMPLES not in arrays and len(arrays) == 1:
        arrays = {SAMPLES: next(iter(arrays.values()))}
    if SAMPLES not in arrays:
        held = ", ".join(arrays) or "nothing"
        raise InvalidInput(f"{path} has no array {SAMPLES!r}; it holds {held}")
    found = arrays[SAMPLES]
    needed = (definition.window.samples, len(definition.inputs))
    if found.ndim == 2:
        found = found[None]
    if found.ndim != 3 or found.shape[1:] != needed or not len(found):
        raise InvalidInput(
            f"{path}: windows have shape {list(found.shape)}; needed is [rows, {needed[0]}, "
            f"{needed[1]}] with the inputs {', '.join(definition.input_names)}; a longer recording "
            f"goes into a .csv with these columns and {TIME}"
        )
    if found.dtype.kind not in "fiu":
        raise InvalidInput(f"{path}: windows are of {found.dtype}, not numbers")
    with np.errstate(over="ignore"):  # becomes infinity, which the evaluator refuses by name
        return np.ascontiguousarray(found, np.float32)


def _window_of(path: Path, number: int, line: Any) -> Any:
    found = line.get(SAMPLES) if isinstance(line, dict) else line
    if not isinstance(found, list):
        raise InvalidInput(
            f"{path}, line {number}: a window is {{{SAMPLES!r}: [[one sample's inputs], ...]}}"
        )
    return found


def _streams(
    path: Path, columns: Mapping[str, list[str]], definition: WindowDefinition
) -> dict[str, Samples]:
    """Samples by stream; without times they are one period of the window's rate apart."""
    _lacking_refused(path, columns, definition.input_names)
    numbers = [_numbers(path, name, columns[name]) for name in definition.input_names]
    values = np.stack(numbers, axis=1)
    names = columns.get(STREAM, [ONE_STREAM] * len(values))
    places: dict[str, list[int]] = {name: [] for name in names}
    for place, name in enumerate(names):
        places[name].append(place)
    if TIME in columns:
        moments = np.array(_moments(path, TIME, columns[TIME]), np.int64)
        return {name: Samples(moments[mine], values[mine]) for name, mine in places.items()}
    period_us = 1e6 / definition.window.rate_hz
    return {
        name: Samples(np.rint(np.arange(len(mine)) * period_us).astype(np.int64), values[mine])
        for name, mine in places.items()
    }


def _columns(path: Path) -> Mapping[str, Any]:
    match path.suffix:
        case ".csv":
            return _csv(path)
        case ".npz":
            return _arrays(path)
        case ".jsonl":
            return _columns_of(path, list(_lines(path)))
        case ".npy":
            raise InvalidInput(
                f"{path}: this model answers requests, which have named fields; give them as .csv "
                "or .jsonl, or in a .npz with an array for each field"
            )
        case _:
            raise _unknown_kind(path)


def _csv(path: Path) -> dict[str, list[str]]:
    """Columns of texts by name."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        rows = []
        for row in reader:
            if row and len(row) != len(names):
                raise InvalidInput(
                    f"{path}, line {reader.line_num}: {len(row)} values; the first line names "
                    f"{len(names)} columns"
                )
            if row:
                rows.append(row)
    except csv.Error as error:
        raise InvalidInput(f"{path}, line {reader.line_num}: {error}") from error
    if len(set(names)) != len(names):
        raise InvalidInput(f"{path}: two columns have the same name")
    _some(path, rows)
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def _lines(path: Path) -> Sequence[tuple[int, Any]]:
    """Numbers and contents of the lines that hold something."""
    found = []
    for number, line in enumerate(_data(path).split(b"\n"), 1):
        if not line.strip():
            continue
        if len(line) > MAX_LINE_BYTES:
            raise InvalidInput(f"{path}, line {number} has more than {MAX_LINE_BYTES} bytes")
        try:
            found.append((number, msgspec.json.decode(line)))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(f"{path}, line {number} is no JSON: {quoted(error)}") from error
    _some(path, found)
    return found


def _columns_of(path: Path, rows: Sequence[tuple[int, Any]]) -> dict[str, list[Any]]:
    """Columns of objects; a field that a line lacks is missing there."""
    names: dict[str, None] = {}
    for number, row in rows:
        if not isinstance(row, dict):
            raise InvalidInput(f"{path}, line {number} is no object of fields")
        names |= dict.fromkeys(row)
    return {name: [row.get(name) for _, row in rows] for name in names}


def _some(path: Path, rows: Sequence[object]) -> None:
    if not rows:
        raise InvalidInput(f"{path} holds no rows")


def _fields(
    path: Path, columns: Mapping[str, Any], fields: Sequence[FieldType], stamps: tuple[Time, ...]
) -> dict[str, Any]:
    """The columns of these fields; others are let be.

    Raises:
        InvalidInput: one is not there, or a text is no number or moment.
    """
    needed = [*stamps, *fields]
    _lacking_refused(path, columns, [field.name for field in needed])
    return {field.name: _column(path, field, columns[field.name]) for field in needed}


def _lacking_refused(path: Path, columns: Mapping[str, Any], needed: Sequence[str]) -> None:
    lacking = [name for name in needed if name not in columns]
    if lacking:
        raise InvalidInput(
            f"{path} lacks {', '.join(lacking)}; it has {', '.join(columns) or 'no columns'}, and "
            f"needed are {', '.join(needed)}"
        )


def _column(path: Path, field: FieldType, values: Any) -> Any:
    """Texts of a .csv as what the field holds; everything else is for the evaluator to judge."""
    if not isinstance(values, list):
        if values.ndim != 1:
            raise InvalidInput(f"{path}: {field.name} has {values.ndim} axes; a field's has one")
        return values
    match field:
        case Number():
            return _numbers(path, field.name, values)
        case Time():
            return _moments(path, field.name, values)
        case _:
            return [None if value == "" else value for value in values]


def _numbers(path: Path, name: str, values: list[Any]) -> Float32:
    found = np.empty(len(values), np.float64)
    for row, value in enumerate(values):
        if value is None or (isinstance(value, str) and value.strip().lower() in NO_NUMBER):
            found[row] = math.nan
            continue
        try:
            found[row] = float(value)
        except (TypeError, ValueError, OverflowError):
            raise InvalidInput(
                f"{path}, row {row + 1}: {name} is {str(value)[:64]!r}, no number"
            ) from None
    with np.errstate(over="ignore"):  # becomes infinity, which the evaluator refuses by name
        return found.astype(np.float32)


def _moments(path: Path, name: str, values: list[Any]) -> list[int]:
    return [_moment(path, name, row, value) for row, value in enumerate(values, 1)]


def _moment(path: Path, name: str, row: int, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidInput(f"{path}, row {row}: {name} is no whole number")
    try:
        found = int(value)
    except ValueError:
        found = LARGEST_MOMENT + 1
    if abs(found) > LARGEST_MOMENT:
        raise InvalidInput(
            f"{path}, row {row}: {name} is {str(value)[:64]!r}; needed are whole microseconds "
            "since 1970"
        )
    return found
