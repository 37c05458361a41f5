"""Logs of raw sensor samples, as CSV or Parquet: a time, the stream's name, and every channel."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidInput, Unavailable, quoted

TIME = "time_us"
STREAM = "stream"
MAX_ROWS = 50_000_000


class SampleLog(NamedTuple):
    """Samples in the order in which they arrived."""

    times_us: npt.NDArray[np.int64]
    """int64 [n]."""
    streams: list[str]
    """[n]; all the same where the log has no such column."""
    samples: npt.NDArray[np.float32]
    """float32 [n, inputs]; NaN where the log has none."""


def read(path: Path, channels: Sequence[str]) -> SampleLog:
    """Read a log; columns that nobody asked for are left out.

    Raises:
        InvalidInput: no such file, damaged, a column is missing, or a value is no number.
        Unavailable: pyarrow is not installed.
    """
    table = _table(path)
    lacking = [name for name in (TIME, *channels) if name not in table.column_names]
    if lacking:
        raise InvalidInput(
            f"{path.name} has no column {', '.join(lacking)}; it needs {TIME} in microseconds, "
            f"the channels {', '.join(channels)}, and {STREAM} if it holds several streams"
        )
    if not 0 < table.num_rows <= MAX_ROWS:
        raise InvalidInput(f"{path.name} has {table.num_rows} rows; 1 to {MAX_ROWS} are read")
    try:
        times = table.column(TIME).cast("int64").to_numpy()
        columns = [_numbers(table.column(name)) for name in channels]
        streams = (
            [str(name) for name in table.column(STREAM).to_pylist()]
            if STREAM in table.column_names
            else ["all"] * table.num_rows
        )
    except (ValueError, TypeError) as error:  # pyarrow's errors are among them
        raise InvalidInput(f"{path.name} holds what is no number: {quoted(error)}") from error
    if table.column(TIME).null_count:
        raise InvalidInput(f"{path.name}: {TIME} is missing in some rows")
    return SampleLog(np.asarray(times, np.int64), streams, np.stack(columns, axis=1))


def _numbers(column: Any) -> npt.NDArray[np.float32]:
    return np.asarray(column.cast("float64").to_numpy(zero_copy_only=False), np.float32)


def _table(path: Path) -> Any:
    try:
        from pyarrow import csv, parquet
    except ImportError as error:
        raise Unavailable("pyarrow is missing: pip install 'serinus[convert]'") from error
    if path.suffix not in (".csv", ".parquet"):
        raise InvalidInput(f"{path.name} is neither .csv nor .parquet")
    try:
        return csv.read_csv(path) if path.suffix == ".csv" else parquet.read_table(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are among them
        raise InvalidInput(f"{path} cannot be read: {quoted(error)}") from error
