"""What an evaluator remembers: an excerpt gives the same bits, and nothing else is believed."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_core import packed
from edge_core.errors import InvalidInput
from edge_core.features import logs, remembered
from edge_core.features.logs import Events
from edge_core.features.over_time import CountWithin, DistinctWithin
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.requests import Category, Keep, Request, Stream, Time
from tests.edge_core.features.test_request_evaluation import (
    DEFINITION,
    EVENTS,
    REQUESTS,
    SECOND,
    Seen,
    define,
    events_of,
    request_of,
)

Row = tuple[int, str, float]


def in_order(seen: list[Seen], rows: list[Row]) -> list[Seen | Row]:
    steps: list[tuple[tuple[int, int], Seen | Row]] = [((e.arrived, 0), e) for e in seen]
    steps += [((row[0], 1), row) for row in rows]
    return [step for _, step in sorted(steps, key=lambda entry: entry[0])]


@settings(max_examples=200, deadline=None)
@given(EVENTS, REQUESTS, st.sampled_from([DEFINITION, define(Keep(entities=2, events=9))]))
def test_an_excerpt_gives_the_same_bits(
    seen: list[Seen], rows: list[Row], definition: RequestDefinition
) -> None:
    evaluator = RequestEvaluator(definition)
    for step in in_order(seen, rows):
        if isinstance(step, Seen):
            evaluator.observe("seen", events_of([step]))
            continue
        request = request_of([step])
        part = RequestEvaluator.restore(definition, evaluator.excerpt(request))
        assert part.ask(request).tobytes() == evaluator.ask(request).tobytes()


@settings(max_examples=50, deadline=None)
@given(EVENTS, REQUESTS)
def test_an_excerpt_of_many_requests_gives_the_bits_of_all(
    seen: list[Seen], rows: list[Row]
) -> None:
    evaluator = RequestEvaluator(DEFINITION)
    for event in sorted(seen, key=lambda e: e.arrived):
        evaluator.observe("seen", events_of([event]))
    now = max(0, evaluator.now_us)
    request = request_of([(now + row[0], *row[1:]) for row in sorted(rows)])
    part = RequestEvaluator.restore(DEFINITION, evaluator.excerpt(request))
    assert part.ask(request).tobytes() == evaluator.ask(request).tobytes()


def crowded(entities: int, events: int) -> RequestEvaluator:
    evaluator = RequestEvaluator(DEFINITION)
    for number in range(events):
        seen = [
            Seen(number * 1000, number, number * 1000, f"p{place}", "x", 1.0)
            for place in range(entities)
        ]
        evaluator.observe("seen", events_of(seen))
    return evaluator


def test_an_excerpt_holds_what_the_request_can_see_and_no_more() -> None:
    evaluator = crowded(50, 100)
    request = request_of([(100_000, "p7", 1.0)])
    kept = remembered.decode(evaluator._digest, evaluator.excerpt(request))
    mine, everything = kept.stores
    assert isinstance(mine, remembered.Kept)
    assert mine.keys == [["p7"]]
    assert len(mine.times) == 100 * 8
    assert isinstance(everything, remembered.Kept)
    assert everything.keys == [[]]
    none = request_of([(100_000, "nobody", 1.0)])
    (empty, _) = remembered.decode(evaluator._digest, evaluator.excerpt(none)).stores
    assert isinstance(empty, remembered.Kept)
    assert empty.keys == []


def test_a_thousand_events_take_two_bytes_each() -> None:
    rng = np.random.default_rng(1)
    evaluator = RequestEvaluator(DEFINITION)
    times = np.cumsum(rng.integers(1, 8000, 1000))
    fields = {"place": ["a"] * 1000, "kind": ["x"] * 1000, "value": [2.0] * 1000}
    evaluator.observe("seen", Events(times, np.arange(1000), times, fields))
    request = request_of([(int(times[-1]), "a", 1.0)])
    # Two stores hold each event.
    assert len(packed.pack(evaluator.excerpt(request))) < 2 * 2 * 1000


STATE = crowded(3, 4).snapshot()


def changed(**changes: Any) -> bytes:
    state = msgspec.msgpack.decode(STATE)
    return msgspec.msgpack.encode(state | changes)


def store(place: int, **changes: Any) -> bytes:
    stores = msgspec.msgpack.decode(STATE)["stores"]
    stores[place] |= changes
    return changed(stores=stores)


def numbers(*values: int) -> bytes:
    return remembered._packed(np.array(values, np.int64))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "damaged"),
        (STATE[:-3], "damaged"),
        (changed(v=9), "has version 9; known are 1 and 2"),
        (changed(definition="0" * 64), "another feature definition"),
        (changed(now_us=2**63 - 1), "beyond 2"),
        (changed(more=1), "damaged"),
        (changed(stores=[]), "other stores"),
        (store(0, keys=[["a"], ["a"], ["b"]]), "entities do not fit"),
        (store(0, keys=[["a"], ["b"]]), "entities do not fit"),
        (store(0, keys=[["a"], ["b"], ["c", "d"]]), "keys are those of another store"),
        (store(0, keys=[["a"], ["b"], ["c" * 65]]), "damaged"),
        (store(0, counts=numbers(4, 4, 5)), "columns do not fit"),
        (store(0, counts=numbers(-4, 8, 8)), "more events of one entity"),
        (store(0, counts=numbers(4, 4)), "columns do not fit"),
        (store(0, counts=b"abc"), "damaged"),
        (store(0, times=numbers(*[0] * 12), sequence=numbers(*[0] * 12)), "not in order"),
        (store(0, times=numbers(2**62, *[1] * 11)), "not in order|beyond 2"),
        (store(0, fields=[]), "columns do not fit"),
        (store(0, fields=[["x"] * 12, ["x"] * 12]), "another kind"),
        (store(0, fields=[numbers(*[2**40] * 12), ["x"] * 12]), "value is out of its range"),
        (store(0, fields=[numbers(*[-101] * 12), ["x"] * 12]), "value is out of its range"),
        (store(0, fields=[numbers(*[1] * 12), ["x" * 65] * 12]), "damaged"),
        (store(0, fields=[numbers(*[1] * 12), ["x"] * 11]), "columns do not fit"),
    ],
)
def test_a_state_that_no_store_could_hold_is_refused(data: bytes, said: str) -> None:
    RequestEvaluator.restore(DEFINITION, STATE)
    with pytest.raises(InvalidInput, match=said):
        RequestEvaluator.restore(DEFINITION, data)


def test_more_than_the_definition_keeps_is_refused() -> None:
    small = define(Keep(entities=2))
    state = msgspec.msgpack.decode(STATE) | {"definition": RequestEvaluator(small)._digest}
    with pytest.raises(InvalidInput, match="more entities or events"):
        RequestEvaluator.restore(small, msgspec.msgpack.encode(state))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(STATE) - 1), st.binary(min_size=1, max_size=4))
def test_altered_bytes_never_break_the_reader(place: int, noise: bytes) -> None:
    data = STATE[:place] + noise + STATE[place + len(noise) :]
    try:
        evaluator = RequestEvaluator.restore(DEFINITION, data)
        evaluator.ask(request_of([(2**61, "p1", 1.0)]))
    except InvalidInput:
        pass


def test_what_was_taken_and_dropped_is_said() -> None:
    evaluator = RequestEvaluator(define(Keep(entities=2, events_per_entity=2)))

    def told(*seen: Seen) -> tuple[int, dict[str, int]]:
        found = evaluator.observe("seen", events_of(list(seen)))
        return found.taken, {k: v for k, v in msgspec.structs.asdict(found.dropped).items() if v}

    now = 100 * SECOND
    first = Seen(now, 1, now, "a", "x", 1.0)
    assert told(first) == (1, {})
    assert told(first) == (0, {"duplicate": 1})
    assert told(first._replace(time=now - 30 * SECOND)) == (0, {"expired": 1})
    assert told(first._replace(time=now + 3 * SECOND)) == (0, {"ahead": 1})
    # Too old for the count over six seconds of all places, not for those over ten of one.
    assert told(first._replace(time=now - 8 * SECOND)) == (1, {})
    # Each goes beyond two events in both groupings, or takes the place of another entity's.
    assert told(first._replace(sequence=2)) == (1, {"overflow": 1})
    others = [first._replace(place=place, sequence=9) for place in "bc"]
    assert told(*others) == (2, {"overflow": 1, "evicted": 2})


def test_moments_of_events_are_told_apart_one_by_one_and_at_once() -> None:
    definition = RequestDefinition(
        request=Request(time="at", fields=[Time(name="at"), Category(name="place")]),
        streams=(
            Stream(
                name="seen",
                fields=[Category(name="place"), Time(name="due", null_policy="keep")],
            ),
        ),
        features=(
            DistinctWithin(
                name="dues",
                stream="seen",
                by={"place": "place"},
                within_s=10,
                field="due",
                default=0,
                min_count=2,
            ),
            CountWithin(name="all", stream="seen", within_s=10),
        ),
    )
    due = [5, None, 5, 6, None]
    when = np.arange(1, 6) * SECOND
    events = Events(when, when, when, {"place": ["a"] * 5, "due": due})
    request = {"at": when + 1, "place": ["a"] * 5}
    whole = RequestEvaluator(definition).replay({"seen": events}, request)
    assert whole[:, 0].tolist() == [0, 0, 1, 2, 2]
    evaluator = RequestEvaluator(definition)
    for row in range(5):
        rows = np.array([row])
        evaluator.observe("seen", events.only(rows))
        evaluator = RequestEvaluator.restore(definition, evaluator.snapshot())
        found = evaluator.ask({"at": request["at"][rows], "place": ["a"]})
        assert found.tolist() == whole[rows].tolist()


@settings(max_examples=100, deadline=None)
@given(REQUESTS)
def test_numbers_are_the_same_for_few_requests_and_many(rows: list[Row]) -> None:
    evaluator = RequestEvaluator(DEFINITION)
    found = evaluator.numbers(request_of(rows))
    alone = [evaluator.numbers({k: list(v) for k, v in request_of([row]).items()}) for row in rows]
    expected = logs.numbers(DEFINITION, request_of(rows))
    assert found.tobytes() == np.concatenate(alone).tobytes() == expected.tobytes()
    assert found.shape == (len(rows), 1, 1)
