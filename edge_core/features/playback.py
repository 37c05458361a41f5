"""Gives a log to an evaluator as a device takes it: in order of arrival, piece by piece.

Training takes the same log at once (:meth:`RequestEvaluator.replay`); both have to give the same
bits. Golden rows are checked this way, and so is a whole log where somebody asks for a proof.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_core.features import columns
from edge_core.features.logs import Events, Log
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Opened = Callable[[RequestDefinition], RequestEvaluator]

MANY = 2**62
"""A piece that ends only where something else came."""


class Played(NamedTuple):
    """What came of it."""

    features: Float32
    """float32 [requests, columns], in the order in which the log has them."""
    evaluator: RequestEvaluator
    """As it was left."""
    restarts: int


def play(
    definition: RequestDefinition,
    log: Log,
    *,
    sizes: Sequence[int] = (MANY,),
    restart_after: int = MANY,
    opened: Opened = RequestEvaluator,
) -> Played:
    """Observe events and ask requests in order of arrival.

    Args:
        definition: of the features.
        log: in any order. Of what came at one moment, events are taken before requests, and a
            stream's events in order of their time and sequence number, as ``replay`` does.
        sizes: rows of one piece, taken in turn. A piece is of one stream, or of requests.
        restart_after: rows after which the evaluator is stored and restored.
        opened: makes the evaluator.

    Raises:
        InvalidInput: as the evaluator's ``observe`` and ``ask``.
    """
    evaluator = opened(definition)
    found = np.empty((0, len(definition.feature_names)), np.float32)
    answers, taken, restarts = [found], 0, 0
    whole = _sorted(definition, log)
    for name, rows in _pieces(whole, sizes):
        if taken >= restart_after:
            evaluator = type(evaluator).restore(definition, evaluator.snapshot())
            taken, restarts = 0, restarts + 1
        source = whole[name]
        fields = {field: column[rows] for field, column in source.fields.items()}
        if name is None:
            answers.append(evaluator.ask(fields))
        else:
            times, sequence, arrived = (part[rows] for part in source.stamps)
            evaluator.observe(name, Events(times, sequence, arrived, fields))
        taken += rows.stop - rows.start
    features = np.empty((len(whole[None].order), found.shape[1]), np.float32)
    features[whole[None].order] = np.concatenate(answers)
    return Played(features, evaluator, restarts)


class _Source(NamedTuple):
    """One stream's events, or the requests, in order of arrival."""

    order: Int64
    """Places in the log."""
    moments: Int64
    """When each came."""
    stamps: Sequence[Int64]
    fields: Mapping[str, Any]


def _sorted(definition: RequestDefinition, log: Log) -> dict[str | None, _Source]:
    """Streams by name, the requests by none."""
    found: dict[str | None, _Source] = {}
    for name, events in log.events.items():
        times, sequence, arrived = (np.asarray(part, np.int64) for part in events[:3])
        order = np.lexsort((sequence, times, arrived))
        stamps = [times[order], sequence[order], arrived[order]]
        found[name] = _Source(order, stamps[-1], stamps, columns.taken(events.fields, order))
    asked = np.asarray(log.request[definition.request.time], np.int64)
    order = np.argsort(asked, kind="stable")
    found[None] = _Source(order, asked[order], [], columns.taken(log.request, order))
    return found


def _pieces(
    whole: Mapping[str | None, _Source], sizes: Sequence[int]
) -> Iterator[tuple[str | None, slice]]:
    """Runs of one source's rows, cut to the sizes."""
    names = list(whole)  # the requests come last, so they follow events of their moment
    source = np.repeat(np.arange(len(names)), [len(whole[name].order) for name in names])
    came = np.concatenate([whole[name].moments for name in names])
    source = source[np.argsort(came, kind="stable")]
    ends = np.flatnonzero(np.diff(source, append=-1)) + 1
    done = dict.fromkeys(names, 0)
    begin = turn = 0
    for end in ends.tolist():
        name = names[int(source[begin])]
        while begin < end:
            rows = min(end - begin, sizes[turn % len(sizes)])
            yield name, slice(done[name], done[name] + rows)
            done[name] += rows
            begin += rows
            turn += 1
