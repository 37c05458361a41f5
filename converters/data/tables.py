"""Tables in ``.parquet`` or ``.csv`` files, read a piece at a time, and their columns' types.

A table is one file, or a folder of files of one kind that are read in the order of their names.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidInput, Unavailable, quoted
from edge_core.features.requests import Category, FieldType, Number, Time

KINDS = (".parquet", ".csv")
UNIT = b"unit"
"""Key of a Parquet column's metadata; where it stands it has to be the definition's unit."""
PIECE_ROWS = 65_536
BUFFER_BYTES = 2**20
"""Of each column that is read from a Parquet file."""
COMPRESSION, LEVEL = "zstd", 3
SAMPLED_BYTES = 2**16
"""Of a text file, whose rows are estimated from its beginning."""

Int64 = npt.NDArray[np.int64]
Column = npt.NDArray[Any] | list[str | None]
"""float32, int64, or texts."""


class Table:
    """Rows of typed fields on disk. Only the fields are read; other columns by name."""

    def __init__(self, path: Path, fields: Sequence[FieldType], also: Sequence[str] = ()) -> None:
        """Open it and look at its columns.

        Args:
            path: of a file, of a folder of files, or of either without its ending.
            fields: what it has to hold.
            also: names of further columns that are passed on as they are.

        Raises:
            InvalidInput: no such file, damaged, or a column is missing or of another type or unit.
            Unavailable: pyarrow is not installed.
        """
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise Unavailable("pyarrow is missing: pip install 'serinus[convert]'") from error
        self.files = _files(path)
        self.name = self.files[0].parent.name if len(self.files) > 1 else self.files[0].name
        self.fields = {field.name: field for field in fields}
        self.also = list(also)
        for file in self.files:
            self._check(file)

    @property
    def also_types(self) -> dict[str, Any]:
        """The further columns' types as pyarrow names them; texts for all of a ``.csv``."""
        import pyarrow as pa

        schema = _reading(self.files[0], _schema)
        text = self.files[0].suffix == ".csv"
        return {name: pa.string() if text else schema.field(name).type for name in self.also}

    @property
    def rows(self) -> int:
        """How many there are; of a ``.csv`` about how many."""
        return sum(_reading(file, _rows) for file in self.files)

    def pieces(self, *, skip: int = 0, rows: int = PIECE_ROWS) -> Iterator[Any]:
        """Record batches of at most ``rows`` rows, in order, without the first ``skip`` rows.

        Raises:
            InvalidInput: what is read is damaged.
        """
        for file in self.files:
            skipped, batches = self._batches(file, skip)
            skip -= skipped
            for batch in batches:
                if skip >= batch.num_rows:
                    skip -= batch.num_rows
                    continue
                for begin in range(skip, batch.num_rows, rows):
                    yield batch.slice(begin, rows)
                skip = 0

    def columns(self, batch: Any) -> dict[str, Column]:
        """A piece's fields: float32 [n], int64 [n] microseconds, or texts; NaN or none if missing.

        Raises:
            InvalidInput: a value is no number, or no moment.
        """
        return {
            name: self._wrapped(name, _converted, field, batch.column(name))
            for name, field in self.fields.items()
        }

    def _check(self, file: Path) -> None:
        schema = _reading(file, _schema)
        needed = [*self.fields, *self.also]
        lacking = [name for name in needed if name not in schema.names]
        if lacking:
            raise InvalidInput(
                f"{file.name} has no column {', '.join(lacking)}; it has {', '.join(schema.names)}"
            )
        if twice := [name for name in needed if schema.names.count(name) > 1]:
            raise InvalidInput(
                f"{file.name} has several columns called {twice[0]}; keep one of them, or rename"
            )
        for field in self.fields.values():
            _check_type(file, field, schema.field(field.name))
        if file == self.files[0] or file.suffix == ".csv":
            return
        for name, kind in self.also_types.items():
            if schema.field(name).type != kind:
                raise InvalidInput(
                    f"{file.name}: {name} is {schema.field(name).type}, in {self.files[0].name} it "
                    f"is {kind}; write both as one type"
                )

    def _batches(self, file: Path, skip: int) -> tuple[int, Iterator[Any]]:
        """How many of the rows to be skipped need not even be read, and batches of the others."""
        names = list(dict.fromkeys([*self.fields, *self.also]))
        skipped, batches = _reading(file, lambda path: _opened(path, self.fields, names, skip))
        return skipped, self._read(file, iter(batches))

    def _read(self, file: Path, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            # Reading goes on while a piece is used: what is damaged later is found later.
            found = _reading(file, lambda _: next(batches, None))
            if found is None:
                return
            yield found

    def _wrapped(self, name: str, convert: Any, *arguments: Any) -> Any:
        try:
            return convert(*arguments)
        except (ValueError, TypeError, OverflowError, NotImplementedError) as error:  # pyarrow's
            raise InvalidInput(f"{self.name}, column {name}: {quoted(error)}") from error


def write(path: Path, table: Any) -> None:
    """Write a ``pyarrow.Table`` so that the same rows give the same bytes."""
    with path.open("wb") as stream:
        write_to(stream, table)


def write_to(stream: Any, table: Any) -> None:
    """As :func:`write`, to a stream.

    Everything that the writer leaves open is fixed here, and it writes in one thread. What is left
    is pyarrow itself: another version may lay pages out otherwise, compress otherwise, and writes
    its name into the file.
    """
    from pyarrow import parquet

    parquet.write_table(
        table.combine_chunks(),
        stream,
        row_group_size=PIECE_ROWS,
        version="2.6",
        data_page_version="1.0",
        data_page_size=1024 * 1024,
        use_dictionary=True,
        compression=COMPRESSION,
        compression_level=LEVEL,
        write_statistics=True,
        store_schema=True,
    )


def names(path: Path) -> list[str]:
    """Names of all columns that any file of a table has.

    Raises:
        InvalidInput: no such file, or it is damaged.
    """
    schemas = [_reading(file, _schema) for file in _files(path)]
    return list(dict.fromkeys(name for schema in schemas for name in schema.names))


def _files(path: Path) -> list[Path]:
    candidates = [path, *(path.with_name(path.name + kind) for kind in KINDS)]
    for found in candidates:
        if found.is_file():
            if found.suffix not in KINDS:
                raise InvalidInput(f"{found.name} is neither {' nor '.join(KINDS)}")
            return [found]
        if found.is_dir():
            files = sorted(file for file in found.iterdir() if file.suffix in KINDS)
            if not files:
                raise InvalidInput(f"{found} holds no {' or '.join(KINDS)}")
            if len({file.suffix for file in files}) > 1:
                raise InvalidInput(
                    f"{found} holds files {' and '.join(KINDS)}, perhaps the same rows twice; keep "
                    "one kind"
                )
            return files
    raise InvalidInput(f"{path} is missing: a file {' or '.join(KINDS)}, or a folder of such files")


def _reading(file: Path, read: Any) -> Any:
    try:
        return read(file)
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's errors are among them
        raise InvalidInput(f"{file} cannot be read: {quoted(error)}") from error


def _schema(file: Path) -> Any:
    from pyarrow import csv, parquet

    if file.suffix == ".parquet":
        return parquet.read_schema(file)
    with csv.open_csv(file, parse_options=csv.ParseOptions(newlines_in_values=True)) as reader:
        return reader.schema


def _rows(file: Path) -> int:
    from pyarrow import parquet

    if file.suffix == ".parquet":
        return int(parquet.read_metadata(file).num_rows)
    size = file.stat().st_size
    with file.open("rb") as stream:
        sample = stream.read(SAMPLED_BYTES)
    lines = max(sample.count(b"\n"), 1)
    return max(0, round(size * lines / max(len(sample), 1)) - 1)


def _opened(
    file: Path, fields: Mapping[str, FieldType], names: Sequence[str], skip: int
) -> tuple[int, Iterable[Any]]:
    import pyarrow as pa
    from pyarrow import csv, parquet

    if file.suffix == ".parquet":
        # What is buffered ahead would stay in memory to the end of the file.
        opened = parquet.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER_BYTES)
        groups = [opened.metadata.row_group(n).num_rows for n in range(opened.num_row_groups)]
        ends = list(itertools.accumulate(groups))
        first = sum(end <= skip for end in ends)
        kept = list(range(first, len(groups)))
        batches = opened.iter_batches(PIECE_ROWS, row_groups=kept, columns=list(names))
        return ends[first - 1] if first else 0, batches
    # Types are ours to say: what pyarrow infers from a file's beginning may not hold to its end.
    # All are read as texts: of those, nothing but an empty field is missing, while pyarrow would
    # take a text for missing that says NA, null or nan.
    options = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        include_columns=list(names),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    # Else a text of several lines is refused where two blocks of the file happen to meet in it.
    parsing = csv.ParseOptions(newlines_in_values=True)
    return 0, csv.open_csv(file, parse_options=parsing, convert_options=options)


def _check_type(file: Path, field: FieldType, column: Any) -> None:
    from pyarrow import types

    unit = (column.metadata or {}).get(UNIT)
    if isinstance(field, Number) and unit is not None and unit.decode() != field.unit:
        raise InvalidInput(
            f"{file.name}: {field.name} is in {unit.decode()}, the definition has {field.unit}; "
            "convert it, or correct the column's metadata"
        )
    if file.suffix == ".csv":
        return
    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    match field:
        case Number():
            fits = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
            needed = "a number"
        case Category():
            fits, needed = types.is_string(kind) or types.is_large_string(kind), "a text"
        case Time():
            zoned = types.is_timestamp(kind) and kind.tz is not None
            fits = zoned or types.is_integer(kind)
            needed = "int64 microseconds since 1970 UTC, or a timestamp with its time zone"
    if not (fits or types.is_null(kind)):
        raise InvalidInput(f"{file.name}: {field.name} is {column.type}; needed is {needed}")


def _converted(field: FieldType, column: Any) -> Column:
    import pyarrow as pa

    match field:
        case Number():
            if pa.types.is_string(column.type):
                column = _numbers(column)
            with np.errstate(over="ignore"):  # becomes infinity, which the evaluator refuses
                found = column.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float32)
            return np.asarray(found, np.float32)
        case Category():
            texts: list[str | None] = column.to_pylist()
            return texts
        case Time():
            return _moments(column)


def _numbers(column: Any) -> Any:
    """Of a ``.csv``; what R, pandas and databases write for a missing number is missing."""
    import pyarrow as pa
    from pyarrow import compute, csv

    texts = compute.utf8_trim_whitespace(column)
    missing = compute.is_in(texts, value_set=pa.array(csv.ConvertOptions().null_values))
    return compute.if_else(missing, pa.scalar(None, pa.string()), texts).cast(pa.float64())


def _moments(column: Any) -> Int64:
    import pyarrow as pa
    from pyarrow import compute

    if column.null_count:
        raise ValueError("a moment is missing")
    if pa.types.is_string(column.type):
        digits = compute.match_substring_regex(column, r"^-?[0-9]+$")
        kind = pa.int64() if compute.all(digits).as_py() else pa.timestamp("us", tz="UTC")
        column = column.cast(kind)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", tz="UTC"))
    return np.asarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False), np.int64)
