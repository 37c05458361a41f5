"""Entities read by several evaluators, put together: the bits of one evaluator."""

import itertools
import zlib
from typing import Any

import numpy as np
import pytest

from edge_core.features.entities import Key
from edge_core.features.logs import Events
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.requests import Keep

from .test_batches import log
from .test_request_evaluation import SECOND, define


def part_of(key: Key, parts: int) -> int:
    return zlib.crc32("|".join(key).encode()) % parts


def pieces(seed: int, late: float) -> list[tuple[Events, dict[str, Any]]]:
    """A log cut at three moments."""
    events, request = log(seed, late)
    found = []
    bounds = [0, 100 * SECOND, 101 * SECOND, 400 * SECOND, 10_000 * SECOND]
    for first, end in itertools.pairwise(bounds):
        came = (events["arrived_us"] >= first) & (events["arrived_us"] < end)
        asked = (request["at_time"] >= first) & (request["at_time"] < end)
        whole = Events(**events)
        rows = np.flatnonzero(asked)
        given = {
            name: [column[row] for row in rows] if isinstance(column, list) else column[rows]
            for name, column in request.items()
        }
        found.append((whole.only(np.flatnonzero(came)), given))
    return found


@pytest.mark.parametrize("late", [0.0, 0.1])
@pytest.mark.parametrize("parts", [1, 2, 5])
@pytest.mark.parametrize("keep", [Keep(), Keep(events_per_entity=4)])
def test_parts_give_what_one_evaluator_gives(keep: Keep, parts: int, late: float) -> None:
    definition = define(keep)
    whole = RequestEvaluator(definition)
    readers = [RequestEvaluator(definition) for _ in range(parts)]
    for events, request in pieces(3, late):
        expected = whole.replay({"seen": events}, request)
        values = [np.full((len(expected), width), np.inf) for width in _widths(whole)]
        for number, reader in enumerate(readers):
            found = reader.read(
                {"seen": events}, request, lambda key, mine=number: part_of(key, parts) == mine
            )
            for place, read in enumerate(found):
                assert np.isinf(values[place][read.rows]).all()
                values[place][read.rows] = read.values
        assert whole.compute(request, values).tobytes() == expected.tobytes()
        held = np.array([reader.most_held() for reader in readers])
        assert (held.sum(axis=0) >= np.array(whole.most_held())).all()
    for name, dropped in whole.dropped.items():
        for kind in ("duplicate", "expired", "ahead", "overflow"):
            counts = [getattr(reader.dropped[name], kind) for reader in readers]
            assert sum(counts) == getattr(dropped, kind)


def _widths(evaluator: RequestEvaluator) -> list[int]:
    return [len(grouped.features) for grouped in evaluator._stores]


def test_the_most_that_was_held_is_told_and_forgotten() -> None:
    evaluator = RequestEvaluator(define())
    (events, request), *_ = pieces(0, 0.0)
    evaluator.replay({"seen": events}, request)
    first = evaluator.most_held()
    assert first[0].entities == 4
    assert first[0].events > 20
    evaluator.replay({}, {name: column[:0] for name, column in request.items()})
    assert evaluator.most_held()[0].events <= first[0].events
