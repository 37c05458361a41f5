"""What one worker does of a backfill that was dealt out: read a partition, make a part.

Both may be done twice, or by two workers at once, to the same result.
"""

import contextlib
import functools
import hashlib
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from converters.data import tables
from converters.data.log_folder import Piece
from converters.history import backfill, feature_rows, parts, piecewise
from converters.history.feature_rows import RequestRows, WindowRows
from converters.history.parts import Part
from edge_core import durable
from edge_core.errors import InvalidInput, SerinusError, quoted
from edge_core.features import definition as definitions
from edge_core.features.logs import Log
from edge_core.features.over_time import OverTime
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator

TOLD = "told"
AT, VALUES = "at", "values"

Float64 = npt.NDArray[np.float64]


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What one partition says of the log, piece by piece."""

    rows: list[int]
    """Requests of each piece, or windows of this partition that it completed."""
    held: list[list[tuple[int, int]]]
    """Most entities and events of each store in each piece."""
    counts: dict[str, dict[str, int]]
    read: int


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What every worker needs to know."""

    definition: bytes
    log: str
    keep: list[str]
    scratch: str
    partitions: int
    part_rows: int

    def opened(self) -> RequestRows | WindowRows:
        """The log's rows, as one process would read them."""
        return feature_rows.opened(Path(self.log), definitions.parse(self.definition), self.keep)


def attempted(work: Callable[..., Any], *given: Any) -> Any:
    """What some work gives, or the refusal it ends with: Dask would tell that as a crash."""
    try:
        return work(*given)
    except SerinusError as error:
        return error


def read_partition(task: Task, number: int) -> Told:
    """Read the log for one partition's entities, and write what was found below ``scratch``."""
    import pyarrow as pa

    final = Path(task.scratch) / f"{number:04d}"
    folder = final.with_suffix(f".{uuid.uuid4().hex}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    rows = task.opened()
    with contextlib.ExitStack() as stack:

        def writing(place: int, schema: Any) -> Any:
            sink = stack.enter_context(pa.OSFile(str(folder / f"{place}.arrow"), "wb"))
            return stack.enter_context(pa.ipc.new_file(sink, schema))

        if isinstance(rows, RequestRows):
            told = _read_requests(rows, number, task.partitions, writing)
        else:
            told = _read_windows(rows, number, task.partitions, writing)
    durable.write_bytes(folder / TOLD, msgspec.msgpack.encode(told))
    durable.sync_tree(folder)
    # Another worker may have done the same work: one of two equal folders stays.
    with contextlib.suppress(OSError):
        folder.rename(final)
    shutil.rmtree(folder, ignore_errors=True)
    durable.sync_folder(final.parent)
    return told_by(final)


def make_part(task: Task, number: int, first: int, pieces: tuple[int, int], skip: int) -> Part:
    """Put one part together from what all partitions found.

    Args:
        task: of the run.
        number: of the part.
        first: its first row's number.
        pieces: of the log, from and up to; its rows are among theirs.
        skip: rows of those pieces that come before it.
    """
    rows = task.opened()
    if isinstance(rows, RequestRows):
        table = _requests(task, rows, first, pieces)
    else:
        found = [_batches(task, p, 0, pieces) for p in range(task.partitions)]
        table = _joined(found, rows.schema()).slice(skip, task.part_rows)
    data = piecewise.packed(backfill.wide(table, rows.definition))
    name = parts.part_name(number)
    durable.write_bytes(Path(task.scratch) / name, data)
    digest = hashlib.sha256(data).hexdigest()
    return Part(name=name, rows=table.num_rows, size=len(data), sha256=digest)


@functools.lru_cache(maxsize=2**16)
def partition_of(key: tuple[str, ...], partitions: int) -> int:
    """Which partition an entity, or a stream of samples, belongs to."""
    text = "".join(f"{len(part)}:{part}" for part in key)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % partitions


def _read_requests(rows: RequestRows, number: int, partitions: int, writing: Any) -> Told:
    import pyarrow as pa

    evaluator = RequestEvaluator(rows.definition)
    writers: list[Any] = []
    counts, held, read = [], [], 0
    first = 0
    for piece in rows.log.pieces(rows=tables.PIECE_ROWS):
        with feature_rows.told(f"requests from row {first}"):
            found = evaluator.read(*piece.log, lambda key: partition_of(key, partitions) == number)
        for place, one in enumerate(found):
            flat = pa.array(np.ascontiguousarray(one.values).ravel())
            listed = pa.FixedSizeListArray.from_arrays(flat, one.values.shape[1])
            batch = pa.record_batch([pa.array(first + one.rows), listed], names=[AT, VALUES])
            if place == len(writers):
                writers.append(writing(place, batch.schema))
            writers[place].write_batch(batch)
        held.append([(most.entities, most.events) for most in evaluator.most_held()])
        counts.append(len(np.asarray(piece.log.request[rows.definition.request.time])))
        first += counts[-1]
        read = sum(piece.taken.values())
    dropped = {name: dict(kinds) for name, kinds in feature_rows.dropped(evaluator).items()}
    return Told(rows=counts, held=held, counts=dropped, read=read)


def _read_windows(rows: WindowRows, number: int, partitions: int, writing: Any) -> Told:
    import pyarrow as pa

    schema = rows.schema().append(pa.field(AT, pa.int64()))
    writer = writing(0, schema)
    counts, read = [], 0
    for piece in rows.log.pieces(rows=rows.piece_rows):
        table, completed = rows.windows(
            piece, read, lambda name: partition_of((name,), partitions) == number
        )
        table = table.append_column(schema.field(AT), pa.array(completed))
        batches = table.combine_chunks().to_batches()
        writer.write_batch(batches[0] if batches else pa.RecordBatch.from_pylist([], schema))
        counts.append(table.num_rows)
        read += len(piece.times_us)
    streams = {name: dict(kinds) for name, kinds in rows.counts().items()}
    return Told(rows=counts, held=[], counts=streams, read=read)


def _requests(task: Task, rows: RequestRows, first: int, pieces: tuple[int, int]) -> Any:
    """A part's requests, with the features that partitions found and those of their own fields."""
    request, also = rows.log.requests(first, task.part_rows)
    count = len(np.asarray(request[rows.definition.request.time]))
    values = []
    for place, grouping in enumerate(rows.definition.groupings()):
        there = np.zeros(count, np.bool_)
        made: Float64 = np.empty((count, _width(rows.definition, grouping)))
        for number in range(task.partitions):
            for batch in _batches(task, number, place, pieces):
                at = batch.column(AT).to_numpy() - first
                mine = (at >= 0) & (at < count)
                found = batch.column(VALUES).flatten().to_numpy(zero_copy_only=False)
                made[at[mine]] = found.reshape(len(at), made.shape[1])[mine]
                there[at[mine]] = True
        if not there.all():
            raise gone(task)
        values.append(made)
    with feature_rows.told(f"requests from row {first}"):
        features = RequestEvaluator(rows.definition).compute(request, values)
    return rows.rows(Piece(Log({}, request), also, {}), first, features)


def _width(definition: RequestDefinition, grouping: Any) -> int:
    """How many features share a grouping."""
    return sum(isinstance(f, OverTime) and f.grouping == grouping for f in definition.features)


def _joined(found: Sequence[Sequence[Any]], schema: Any) -> Any:
    """Windows of all partitions, in the order of the samples that completed them."""
    import pyarrow as pa

    batches = [batch for one in found for batch in one]
    if not batches:
        return schema.empty_table()
    table = pa.Table.from_batches(batches)
    order = np.argsort(table.column(AT).to_numpy())
    return table.drop_columns([AT]).take(pa.array(order))


def _batches(task: Task, partition: int, place: int, pieces: tuple[int, int]) -> list[Any]:
    import pyarrow as pa

    path = Path(task.scratch) / f"{partition:04d}" / f"{place}.arrow"
    if pieces[0] == pieces[1]:
        return []
    try:
        with pa.OSFile(str(path), "rb") as source:
            reader = pa.ipc.open_file(source)
            return [reader.get_batch(piece) for piece in range(*pieces)]
    except (OSError, ValueError) as error:  # pyarrow's errors are among them
        raise InvalidInput(
            f"{path} cannot be read ({quoted(error)}): begin anew with --restart"
        ) from error


def gone(task: Task) -> InvalidInput:
    """Something that was there has been taken away."""
    return InvalidInput(
        f"{task.scratch}: what some partition found is gone; begin anew with --restart"
    )


def told_by(folder: Path) -> Told:
    """What a partition said when it was done; raise :class:`InvalidInput` where it is damaged."""
    try:
        return msgspec.msgpack.decode((folder / TOLD).read_bytes(), type=Told)
    except msgspec.MsgspecError as error:
        raise InvalidInput(
            f"{folder / TOLD} is damaged ({quoted(error)}): begin anew with --restart"
        ) from error
