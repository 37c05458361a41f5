"""Backfill by Dask, for logs that outgrow one machine: the same evaluator, the same bytes.

Entities do not see one another, so each partition reads the whole log and keeps to its own: those
whose key's hash it has, of each way in which features group a stream; or its own streams of
samples. What they find is put together row by row, part by part. Log and output have to be on a
file system that all workers see by the same path.

Only where a store has to drop for lack of room do entities see one another. That is ruled out by
counting, or else refused.
"""

import contextlib
import functools
import hashlib
import os
import shutil
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from converters import backfill, feature_rows, parts, piecewise, tables
from converters.backfill import Request
from converters.feature_rows import RequestRows, WindowRows
from converters.log_folder import Piece
from converters.parts import Done, Output, Part, State
from converters.piecewise import Report
from edge_core import durable
from edge_core.errors import InvalidInput, SerinusError, Unavailable, quoted
from edge_core.features import definition as definitions
from edge_core.features.logs import Log
from edge_core.features.over_time import OverTime
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator

LOCAL = "local"
MAX_PARTITIONS = 4096
CONNECT_S = 15
AHEAD = 4
"""Parts for each worker that are made before the first of them is put in its place."""
QUIET = {"dashboard_address": "127.0.0.1:0"}
"""No dashboard; what a scheduler says over HTTP beside it takes any port that is free."""
TOLD = "told"
AT, VALUES = "at", "values"

Int64 = npt.NDArray[np.int64]
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


def run(request: Request, report: Report, *, address: str, partitions: int) -> Done:
    """Compute what is left to compute.

    Args:
        request: as for :func:`converters.backfill.run`; an output is gone on with by as many
            partitions as it was begun with.
        report: is told of the progress.
        address: of a scheduler; ``local`` starts workers on this machine.
        partitions: how many ways the entities are dealt out.

    Raises:
        Unavailable: dask is not installed, or no scheduler answers; or as for backfill.
        InvalidInput: a store might have to drop something; or as for backfill.
    """
    if not 1 <= partitions <= MAX_PARTITIONS:
        raise InvalidInput(f"--partitions {partitions}: 1 to {MAX_PARTITIONS} can be had")
    rows = feature_rows.opened(request.log, request.definition, request.keep)
    feature_rows.check_names(rows.identity, request.definition.feature_names)
    by = f"dask, {partitions} partitions"
    job = backfill.job_of(request, rows, command="backfill", by=by)
    with parts.opened(request.output, job, restart=request.restart) as output:
        if output.done is not None:
            return output.done
        task = Task(
            definition=definitions.serialize(request.definition),
            log=str(request.log.resolve()),
            keep=list(request.keep),
            scratch=str(output.scratch().resolve()),
            partitions=partitions,
            part_rows=job.part_rows,
        )
        report.begun(rows.total, 0)
        with _client(address, partitions) as client:
            told = _read_all(client, task, rows.total, report)
            if isinstance(request.definition, RequestDefinition):
                check_room(request.definition, told)
            _put_together(client, task, output, told, report)
        backfill.check_unchanged(output, rows)
        return output.finish(_summed([one.counts for one in told]))


def check_room(definition: RequestDefinition, told: Sequence[Told]) -> None:
    """Prove that one machine would have dropped nothing for lack of room.

    In each piece of the log the most that all partitions held, added up, is no less than what one
    store would have held at any moment of it.

    Raises:
        InvalidInput: it may have been more than the definition keeps.
    """
    held = np.array([one.held for one in told], np.int64)  # [partitions, pieces, groupings, 2]
    if not held.size:
        return
    most = held.sum(axis=0).max(axis=0)
    streams = {stream.name: stream for stream in definition.streams}
    for (name, by), (entities, events) in zip(definition.groupings(), most.tolist(), strict=True):
        keep = streams[name].keep
        for what, found, kept in (
            ("entities", entities, keep.entities),
            ("events", events, keep.events),
        ):
            if found > kept:
                grouped = "/".join([name, *(theirs for _, theirs in by)])
                raise InvalidInput(
                    f"{grouped}: up to {found} {what} may be held at once, and the definition "
                    f"keeps {kept}; partitions cannot tell which of them one machine would drop: "
                    f"let stream {name} keep {found} {what}, or leave --dask away"
                )


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
    return _told(final)


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
            raise InvalidInput(
                f"{task.scratch}: some partition's values are gone; begin anew with --restart"
            )
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
    if not path.exists():  # a log without pieces
        return []
    with pa.OSFile(str(path), "rb") as source:
        reader = pa.ipc.open_file(source)
        return [reader.get_batch(piece) for piece in range(*pieces)]


def _read_all(client: Any, task: Task, total: int, report: Report) -> list[Told]:
    """What all partitions say; those that an earlier run finished are not read again."""
    from distributed import as_completed

    told: dict[int, Told] = {}
    waiting = {}
    for number in range(task.partitions):
        if (Path(task.scratch) / f"{number:04d}" / TOLD).exists():
            told[number] = _told(Path(task.scratch) / f"{number:04d}")
        else:
            waiting[client.submit(attempted, read_partition, task, number, pure=False)] = number
    report.advanced(total * len(told) // task.partitions, 0)
    for future in as_completed(list(waiting)):  # type: ignore[no-untyped-call]  # dask has no types
        told[waiting[future]] = _result(future)
        report.advanced(total // task.partitions, 0)
    found = [told[number] for number in range(task.partitions)]
    if any(one.read != found[0].read for one in found):
        raise InvalidInput(f"{task.log} changed while it was read: begin anew with --restart")
    return found


def _put_together(
    client: Any, task: Task, output: Output, told: Sequence[Told], report: Report
) -> None:
    windows = not isinstance(definitions.parse(task.definition), RequestDefinition)
    counts = np.array([one.rows for one in told], np.int64)
    by_piece = counts.sum(axis=0) if windows else counts[0]
    starts = np.concatenate([[0], np.cumsum(by_piece)]).astype(np.int64)
    total, size = int(starts[-1]), task.part_rows
    waiting: deque[Any] = deque()
    todo = iter(range(len(output.state.parts), max(1, -(-total // size))))
    workers = max(1, len(client.scheduler_info()["workers"]))
    while True:
        while len(waiting) < AHEAD * workers and (number := next(todo, None)) is not None:
            first, end = number * size, min((number + 1) * size, total)
            begin = max(0, int(np.searchsorted(starts, first, "right")) - 1)
            stop = int(np.searchsorted(starts, end, "left"))
            place = (begin, max(begin, stop)) if end > first else (0, 0)
            skip = first - int(starts[begin])
            given = (task, number, first, place, skip)
            waiting.append(client.submit(attempted, make_part, *given, pure=False))
        if not waiting:
            return
        part = _result(waiting.popleft())
        state = State(job=output.job, read=told[0].read)
        output.adopt(Path(task.scratch) / part.name, part, state)
        report.advanced(0, part.rows)


def _result(future: Any) -> Any:
    found = future.result()
    if isinstance(found, SerinusError):
        raise found
    return found


def _told(folder: Path) -> Told:
    try:
        return msgspec.msgpack.decode((folder / TOLD).read_bytes(), type=Told)
    except msgspec.MsgspecError as error:
        raise InvalidInput(
            f"{folder / TOLD} is damaged ({quoted(error)}): begin anew with --restart"
        ) from error


def _summed(found: Sequence[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    total: dict[str, dict[str, int]] = {}
    for counts in found:
        for name, kinds in counts.items():
            mine = total.setdefault(name, dict.fromkeys(kinds, 0))
            for kind, count in kinds.items():
                mine[kind] += count
    return total


@contextlib.contextmanager
def _client(address: str, partitions: int) -> Iterator[Any]:
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise Unavailable("dask is missing: pip install 'serinus[dask]'") from error
    with contextlib.ExitStack() as stack:
        try:
            if address == LOCAL:
                cluster = LocalCluster(  # type: ignore[no-untyped-call]  # dask has no types
                    n_workers=min(partitions, os.cpu_count() or 1),
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=None,
                    scheduler_kwargs=QUIET,
                )
                stack.enter_context(cluster)
                address = cluster.scheduler_address
            client = Client(  # type: ignore[no-untyped-call]  # dask has no types
                address, timeout=CONNECT_S
            )
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"no Dask scheduler answers at {address} ({quoted(error)}): start one, or use "
                "--dask local"
            ) from error
        yield stack.enter_context(client)
