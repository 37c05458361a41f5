"""Runs a computation over a log piece by piece into parts, in constant memory.

Where a log's pieces end depends on where reading began, so parts are cut by their rows alone: a run
that was stopped and went on writes the bytes of one that was not.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from converters.data import tables
from converters.history.parts import Output, State
from edge_core.errors import InvalidInput, quoted

PART_ROWS = 65_536
PART_BYTES = 64 * 2**20
"""Of a part's rows before they are packed."""
ALIGNED = 64
"""Parts hold a multiple of so many rows, so that a model's batches are always the same."""
SAVED_ROWS = 2**20
"""Of input, after which a state is stored even if no part is full."""

Counts = Mapping[str, Mapping[str, int]]


class Step(NamedTuple):
    """What came of one piece of the input."""

    rows: Any
    """A pyarrow table, perhaps without rows."""
    read: int
    """Rows of the input, of all its tables."""


class Source(Protocol):
    """Turns a log into rows, one piece after the other; can be stored between two pieces."""

    def steps(self) -> Iterator[Step]:
        """Go on with the next piece, to the end."""
        ...

    def snapshot(self) -> bytes:
        """What has to be remembered after the last step."""
        ...

    def restore(self, data: bytes) -> None:
        """Go on where a snapshot was taken; raise :class:`InvalidInput` where it is damaged."""
        ...

    def counts(self) -> Counts:
        """What was dropped and counted up to the last step."""
        ...


Finish = Callable[[Any], Any]
"""A part's rows as they come from the source -> the table that is written."""


class Report(Protocol):
    """Shows how far a run is."""

    def begun(self, total: int, read: int) -> None:
        """How many rows the input has, about, and how many of them an earlier run has read."""
        ...

    def advanced(self, read: int, rows: int) -> None:
        """How many more rows of the input were read, and how many were made of them."""
        ...


def part_rows(row_bytes: int) -> int:
    """How many rows a part holds, by what one takes."""
    return max(ALIGNED, min(PART_ROWS, PART_BYTES // max(row_bytes, 1)) // ALIGNED * ALIGNED)


def run(source: Source, finish: Finish, empty: Any, output: Output, report: Report) -> None:
    """Write the parts that are left to write; to say that none follows is the caller's.

    Args:
        source: of the rows.
        finish: makes what is written of them.
        empty: a table without rows, as the source makes them.
        output: where parts go, and where to begin.
        report: is told of the progress.

    Raises:
        InvalidInput: the input is refused, or a stored state is damaged. Parts up to there stay.
    """
    import pyarrow as pa

    waiting = empty
    try:
        if output.state.work:
            source.restore(output.state.work)
        if output.state.waiting:
            waiting = _unpacked(output.state.waiting)
    except InvalidInput as error:
        raise InvalidInput(
            f"{output.folder} cannot go on: {error}; begin it anew with --restart"
        ) from error
    size, unsaved = output.job.part_rows, 0
    for step in source.steps():
        waiting = pa.concat_tables([waiting, step.rows]).combine_chunks()
        unsaved += step.read
        read = output.state.read + unsaved
        while waiting.num_rows >= size:
            full, waiting = waiting.slice(0, size), waiting.slice(size)
            _commit(output, finish(full), _state(output, source, waiting, read))
            unsaved = 0
        if unsaved >= SAVED_ROWS:
            output.save(_state(output, source, waiting, read))
            unsaved = 0
        report.advanced(step.read, step.rows.num_rows)
    if waiting.num_rows or not output.state.parts:
        end = _state(output, source, waiting.slice(0, 0), output.state.read + unsaved)
        _commit(output, finish(waiting), end)
    elif unsaved:
        output.save(_state(output, source, waiting, output.state.read + unsaved))


def packed(table: Any) -> bytes:
    """A part's bytes: the same for the same rows, however they came."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    tables.write_to(sink, table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _commit(output: Output, table: Any, state: State) -> None:
    output.commit(packed(table), table.num_rows, state)


def _state(output: Output, source: Source, waiting: Any, read: int) -> State:
    return State(
        job=output.job,
        parts=output.state.parts,
        read=read,
        waiting=_stream(waiting),
        work=source.snapshot(),
    )


def _stream(table: Any) -> bytes:
    import pyarrow as pa

    if not table.num_rows:
        return b""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _unpacked(data: bytes) -> Any:
    import pyarrow as pa

    try:
        return pa.ipc.open_stream(data).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidInput(f"the rows of a stored state are damaged: {quoted(error)}") from error
