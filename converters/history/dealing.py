"""Deals rows of Parquet files out to files by a hash of their key: rows of one key meet."""

import contextlib
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.data import tables
from edge_core.errors import InvalidConfiguration, InvalidInput, quoted

BATCH_ROWS = 65_536
MIX = np.uint64(0x9E3779B97F4A7C15)


class Side:
    """Parquet files with one schema."""

    def __init__(self, path: Path, name: str) -> None:
        from pyarrow import parquet

        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not files or not files[0].is_file():
            raise InvalidConfiguration(f"{path} is no Parquet file, and no folder of such files")
        self.name = name
        self.files = files
        with _told(files[0]):
            self.schema = parquet.read_schema(files[0])
        self.columns: list[str] = self.schema.names
        self.rows = 0
        for file in files:
            with _told(file):
                self.rows += parquet.read_metadata(file).num_rows
                if gone := set(self.columns) - set(parquet.read_schema(file).names):
                    raise ValueError(f"no column {min(gone)}, which {files[0].name} has")

    def check(self, key: Sequence[str], values: Sequence[str]) -> None:
        """All columns of the key are there, and no column that is needed is there twice."""
        for name in [*key, *values]:
            if self.columns.count(name) > 1:
                raise InvalidInput(f"{self.name}: there are several columns called {name}")
        if lacking := [name for name in key if name not in self.columns]:
            raise InvalidConfiguration(
                f"{self.name}: no column {', '.join(lacking)}; name with --key what tells rows "
                f"apart on both sides. It has {', '.join(self.columns[:8])}"
            )

    def check_numbers(self, names: Sequence[str]) -> None:
        """Columns that are compared hold numbers."""
        for name in names:
            if not self.is_number(name):
                raise InvalidInput(
                    f"{self.name}: {name} is {self.schema.field(name).type}; needed is a number"
                )

    def is_number(self, name: str) -> bool:
        """Whether a column holds numbers."""
        from pyarrow import types

        kind = self.schema.field(name).type
        return bool(types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind))

    def deal(
        self, folder: Path, key: Sequence[str], names: Sequence[str], buckets: int, like: Any
    ) -> None:
        """Write key and values to one file for each bucket."""
        import pyarrow as pa

        folder.mkdir(parents=True)
        kinds = [_simple(like.field(name).type) for name in key]
        schema = pa.schema(
            [pa.field(n, kind) for n, kind in zip(key, kinds, strict=True)]
            + [pa.field(name, pa.float32()) for name in names]
        )
        with _Files(folder, buckets, schema) as files:
            for batch in self._batches([*key, *names]):
                with _told(self.files[0]):
                    columns = [_cast(batch.column(field.name), field.type) for field in schema]
                table = pa.table(columns, schema=schema)
                places = _hashed(table, key) % np.uint64(buckets)
                order = np.argsort(places, kind="stable")
                bounds = np.searchsorted(places[order], np.arange(buckets + 1, dtype=np.uint64))
                dealt = table.take(pa.array(order))
                for bucket in np.unique(places).tolist():
                    first, end = int(bounds[bucket]), int(bounds[bucket + 1])
                    files.write(bucket, dealt.slice(first, end - first))

    def _batches(self, names: Sequence[str]) -> Iterator[Any]:
        from pyarrow import parquet

        for file in self.files:
            with _told(file):
                opened = parquet.ParquetFile(
                    file, pre_buffer=False, buffer_size=tables.BUFFER_BYTES
                )
                yield from opened.iter_batches(BATCH_ROWS, columns=list(dict.fromkeys(names)))


class _Files:
    """One open Arrow file for each bucket."""

    def __init__(self, folder: Path, buckets: int, schema: Any) -> None:
        import pyarrow as pa

        self._sinks = [pa.OSFile(str(folder / str(bucket)), "wb") for bucket in range(buckets)]
        self._writers = [pa.ipc.new_stream(sink, schema) for sink in self._sinks]

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *_: object) -> None:
        for writer, sink in zip(self._writers, self._sinks, strict=True):
            writer.close()
            sink.close()

    def write(self, bucket: int, table: Any) -> None:
        """Add rows."""
        self._writers[bucket].write_table(table)


def read(path: Path) -> Any:
    """What was dealt out to one file."""
    import pyarrow as pa

    with pa.OSFile(str(path), "rb") as source:
        return pa.ipc.open_stream(source).read_all()


def _cast(column: Any, kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_float32(kind):
        return column.cast(pa.float64()).cast(kind, safe=False)
    return column.cast(kind)


def _simple(kind: Any) -> Any:
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _hashed(table: Any, key: Sequence[str]) -> npt.NDArray[np.uint64]:
    """A number for each row's key, the same on both sides."""
    found = np.zeros(table.num_rows, np.uint64)
    for name in key:
        coded = table.column(name).combine_chunks().dictionary_encode(null_encoding="encode")
        # Few different values: a hash of each one's text is worth the while.
        marks = [zlib.crc32(str(value).encode()) for value in coded.dictionary.to_pylist()]
        indices = coded.indices.to_numpy(zero_copy_only=False)
        found = (found ^ np.array(marks, np.uint64)[indices]) * MIX
        found ^= found >> np.uint64(29)
    return found


@contextlib.contextmanager
def _told(file: Path) -> Iterator[None]:
    """Say which file is damaged, or holds what does not fit."""
    try:
        yield
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's errors are among them
        raise InvalidInput(f"{file} cannot be compared: {quoted(error)}") from error
