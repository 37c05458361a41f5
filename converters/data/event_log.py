"""Logs of raw sensor samples, as CSV or Parquet: a time, the stream's name, and every channel.

A log is one file, or a folder of files that are read in the order of their names.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from converters.data import tables
from converters.data.tables import Table
from edge_core.errors import InvalidInput
from edge_core.features.requests import FieldType, Number, Time
from edge_core.features.sensors import SensorInput

TIME = "time_us"
STREAM = "stream"
ONE_STREAM = "all"
"""Name of the only stream of a log without such a column."""
MAX_ROWS = 50_000_000
"""Of a log that is read at once."""


class SampleLog(NamedTuple):
    """Samples in the order in which they arrived."""

    times_us: npt.NDArray[np.int64]
    """int64 [n]."""
    streams: list[str]
    """[n]; all the same where the log has no such column."""
    samples: npt.NDArray[np.float32]
    """float32 [n, inputs]; NaN where the log has none."""


class SampleTable:
    """A log on disk, read a piece at a time. Only its channels are read."""

    def __init__(self, path: Path, inputs: Sequence[SensorInput]) -> None:
        """Look at its files and their columns.

        Raises:
            InvalidInput: no such file, damaged, or a column is missing or of another type or unit.
            Unavailable: pyarrow is not installed.
        """
        self._channels = [entry.name for entry in inputs]
        fields: list[FieldType] = [Time(name=TIME)]
        fields += [
            Number(name=e.name, unit=e.unit, lsb=e.lsb, low=e.low, high=e.high) for e in inputs
        ]
        also = [STREAM] if STREAM in tables.names(path) else []
        self._table = Table(path, fields, also)

    @property
    def name(self) -> str:
        """Of the file or folder."""
        return self._table.name

    @property
    def files(self) -> list[Path]:
        """All of them, in order."""
        return self._table.files

    @property
    def rows(self) -> int:
        """How many samples there are; of a ``.csv`` about how many."""
        return self._table.rows

    def pieces(self, *, skip: int = 0, rows: int = tables.PIECE_ROWS) -> Iterator[SampleLog]:
        """At most ``rows`` samples at a time, in order, without the first ``skip``.

        Raises:
            InvalidInput: damaged, a value is no number, or a time or a stream's name is missing.
        """
        for batch in self._table.pieces(skip=skip, rows=rows):
            columns = self._table.columns(batch)
            channels = [np.asarray(columns[name], np.float32) for name in self._channels]
            times = np.asarray(columns[TIME], np.int64)
            streams = self._streams(batch) if self._table.also else [ONE_STREAM] * len(times)
            yield SampleLog(times, streams, np.stack(channels, axis=1))

    def _streams(self, batch: Any) -> list[str]:
        import pyarrow as pa

        column = batch.column(STREAM)
        if column.null_count:
            raise InvalidInput(f"{self.name}: {STREAM} is missing in some rows")
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        try:
            names: list[str] = column.cast(pa.string()).to_pylist()
        except (ValueError, NotImplementedError) as error:  # pyarrow's errors are among them
            raise InvalidInput(
                f"{self.name}: {STREAM} is {column.type}; needed is a text, or a number"
            ) from error
        return names


def read(path: Path, inputs: Sequence[SensorInput]) -> SampleLog:
    """Read a whole log.

    Raises:
        InvalidInput: as :class:`SampleTable`; or it has no rows, or too many.
    """
    table = SampleTable(path, inputs)
    parts, rows = [], 0
    for piece in table.pieces():
        parts.append(piece)
        rows += len(piece.times_us)
        if rows > MAX_ROWS:
            break
    if not 0 < rows <= MAX_ROWS:
        raise InvalidInput(f"{table.name} has {rows} rows; 1 to {MAX_ROWS} are read")
    return SampleLog(
        np.concatenate([part.times_us for part in parts]),
        [name for part in parts for name in part.streams],
        np.concatenate([part.samples for part in parts]),
    )
