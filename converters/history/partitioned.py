"""Backfill by Dask, for logs that outgrow one machine: the same evaluator, the same bytes.

Entities do not see one another, so each partition reads the whole log and keeps to its own: those
whose key's hash it has, of each way in which features group a stream; or its own streams of
samples. What they find is put together row by row, part by part. Log and output have to be on a
file system that all workers see by the same path.

Only where a store has to drop for lack of room do entities see one another. That is ruled out by
counting, or else refused.
"""

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters.history import backfill, feature_rows, parts
from converters.history.backfill import Request
from converters.history.partition_work import (
    TOLD,
    Task,
    Told,
    attempted,
    gone,
    make_part,
    read_partition,
    told_by,
)
from converters.history.parts import Done, Output, State
from converters.history.piecewise import Report
from edge_core.errors import InvalidInput, SerinusError, Unavailable, quoted
from edge_core.features import definition as definitions
from edge_core.features.request_definition import RequestDefinition

LOCAL = "local"
MAX_PARTITIONS = 4096
CONNECT_S = 15
AHEAD = 4
"""Parts for each worker that are made before the first of them is put in its place."""
QUIET = {"dashboard_address": "127.0.0.1:0"}
"""No dashboard; what a scheduler says over HTTP beside it takes any port that is free."""


def run(request: Request, report: Report, *, address: str, partitions: int) -> Done:
    """Compute what is left to compute.

    Args:
        request: as for :func:`converters.history.backfill.run`; an output is gone on with by as
            many partitions as it was begun with.
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


def _read_all(client: Any, task: Task, total: int, report: Report) -> list[Told]:
    """What all partitions say; those that an earlier run finished are not read again."""
    from distributed import as_completed

    told: dict[int, Told] = {}
    waiting = {}
    for number in range(task.partitions):
        if (Path(task.scratch) / f"{number:04d}" / TOLD).exists():
            told[number] = told_by(Path(task.scratch) / f"{number:04d}")
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
    waiting: deque[tuple[int, Any]] = deque()
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
            made = client.submit(attempted, make_part, *given, pure=False)
            waiting.append((end - first, made))
        if not waiting:
            return
        wanted, made = waiting.popleft()
        part = _result(made)
        if part.rows != wanted:
            raise gone(task)
        state = State(job=output.job, read=told[0].read)
        output.adopt(Path(task.scratch) / part.name, part, state)
        report.advanced(0, part.rows)


def _result(future: Any) -> Any:
    from concurrent.futures import CancelledError

    from distributed.scheduler import KilledWorker

    try:
        found = future.result()
    except (KilledWorker, CancelledError) as error:
        raise Unavailable(
            f"Dask lost its workers or its scheduler ({type(error).__name__}): see that each "
            "worker has memory for a partition, and run the command again to go on"
        ) from error
    if isinstance(found, SerinusError):
        raise found
    return found


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
        except (OSError, ValueError, RuntimeError) as error:  # the last where no worker starts
            raise Unavailable(
                f"no Dask scheduler answers at {address} ({quoted(error)}): start one, or use "
                "--dask local"
            ) from error
        yield stack.enter_context(client)
