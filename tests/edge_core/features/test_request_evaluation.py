"""Features of requests: a log at once, piece by piece with restarts, and by brute force agree."""

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_core.errors import InvalidInput
from edge_core.features.logs import Events
from edge_core.features.over_rows import Field, Missing, OneHot, Ratio
from edge_core.features.over_time import (
    CountWithin,
    DistinctWithin,
    LastWithin,
    MeanWithin,
    SumWithin,
    TimeSince,
)
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.requests import Category, Keep, Number, Request, Stream, Time

LSB = 0.5
BY = {"place": "place"}
FEATURES = (
    CountWithin(name="count", stream="seen", by=BY, within_s=10),
    SumWithin(name="sum", stream="seen", by=BY, within_s=10, field="value", default=-1),
    MeanWithin(
        name="mean", stream="seen", by=BY, within_s=4, field="value", min_count=2, default=-2
    ),
    LastWithin(name="last", stream="seen", by=BY, within_s=10, field="value", default=-3),
    TimeSince(name="since", stream="seen", by=BY, within_s=10, default=-4),
    DistinctWithin(name="kinds", stream="seen", by=BY, within_s=10, field="kind", default=-5),
    CountWithin(name="all", stream="seen", within_s=6),
    Ratio(name="share", input="count", over="all", default=0),
    Field(name="size_itself", input="size", default=0),
    Missing(name="size_missing", input="size"),
    OneHot(name="at", input="place", values=["a", "b"]),
)


def define(keep: Keep = Keep()) -> RequestDefinition:  # noqa: B008  # immutable
    return RequestDefinition(
        request=Request(
            time="at_time",
            fields=[
                Time(name="at_time"),
                Category(name="place"),
                Number(name="size", unit="m", lsb=LSB, low=-100, high=100, null_policy="keep"),
            ],
        ),
        streams=(
            Stream(
                name="seen",
                fields=[
                    Category(name="place"),
                    Category(name="kind", null_policy="keep"),
                    Number(name="value", unit="m", lsb=LSB, low=-50, high=50, null_policy="keep"),
                ],
                keep=keep,
                max_ahead_s=2,
            ),
        ),
        features=FEATURES,
    )


DEFINITION = define()


class Seen(NamedTuple):
    time: int
    sequence: int
    arrived: int
    place: str
    kind: str | None
    value: float


SECOND = 1_000_000
EVENTS = st.lists(
    st.builds(
        lambda time, delay, sequence, place, kind, value: Seen(
            time * SECOND, sequence, max(0, time + delay) * SECOND, place, kind, value
        ),
        st.integers(0, 30),
        st.sampled_from([0] * 6 + [1, 5, 12, -1, -5]),
        st.integers(0, 3),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["x", "y", None]),
        st.one_of(st.integers(-120, 120).map(lambda v: v * 0.5), st.just(math.nan)),
    ),
    max_size=40,
)
REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 35).map(lambda t: t * SECOND),
        st.sampled_from(["a", "b", "c", "d"]),
        st.sampled_from([1.5, -3.0, math.nan]),
    ),
    min_size=1,
    max_size=25,
)


def events_of(seen: list[Seen]) -> Events:
    columns: list[Any] = list(zip(*seen, strict=True)) if seen else [[]] * 6
    times, sequence, arrived, place, kind, value = columns
    return Events(
        np.array(times, np.int64),
        np.array(sequence, np.int64),
        np.array(arrived, np.int64),
        {"place": list(place), "kind": list(kind), "value": np.array(value, np.float32)},
    )


def request_of(rows: list[tuple[int, str, float]]) -> dict[str, Any]:
    times, places, sizes = (list(column) for column in zip(*rows, strict=True))
    return {"at_time": np.array(times, np.int64), "place": places, "size": np.array(sizes)}


def kept(seen: list[Seen]) -> list[Seen]:
    """Events in order of arrival, without those that the stream drops."""
    found: dict[tuple[str, int, int], Seen] = {}
    for event in sorted(seen, key=lambda e: (e.arrived, e.time, e.sequence)):
        if event.arrived - 10 * SECOND <= event.time <= event.arrived + 2 * SECOND:
            found.setdefault((event.place, event.time, event.sequence), event)
    return list(found.values())


def by_force(seen: list[Seen], rows: list[tuple[int, str, float]]) -> list[dict[str, float]]:
    """Each feature from its definition, looking at every event for every request."""
    events = kept(seen)
    # The store over all places knows an event by time and sequence number alone.
    everywhere: dict[tuple[int, int], Seen] = {}
    for event in sorted(seen, key=lambda e: (e.arrived, e.time, e.sequence)):
        if event.arrived - 6 * SECOND <= event.time <= event.arrived + 2 * SECOND:
            everywhere.setdefault((event.time, event.sequence), event)
    found = []
    for now, place, size in rows:
        mine = sorted(
            (e for e in events if e.place == place and e.arrived <= now and e.time < now),
            key=lambda e: (e.time, e.sequence),
        )
        ten = [e for e in mine if e.time >= now - 10 * SECOND]
        values = [clip(e.value) for e in ten if not math.isnan(e.value)]
        four = [
            clip(e.value) for e in mine if e.time >= now - 4 * SECOND and not math.isnan(e.value)
        ]
        every = sum(
            now - 6 * SECOND <= e.time < now for e in everywhere.values() if e.arrived <= now
        )
        kinds = {e.kind for e in ten if e.kind is not None}
        found.append(
            {
                "count": len(ten),
                "sum": sum(values) if values else -1,
                "mean": mean(four),
                "last": values[-1] if values else -3,
                "since": (now - ten[-1].time) / SECOND if ten else -4,
                "kinds": len(kinds) if kinds else -5,
                "all": every,
                "share": len(ten) / every if every else 0,
                "size_itself": 0 if math.isnan(size) else size,
                "size_missing": math.isnan(size),
                "at=a": place == "a",
                "at=b": place == "b",
                "at=other": place not in ("a", "b"),
            }
        )
    return found


def clip(value: float) -> Fraction:
    return Fraction(min(max(value, -50.0), 50.0))


def mean(values: list[Fraction]) -> float:
    return float(sum(values) / len(values)) if len(values) >= 2 else -2.0


def piecewise(
    definition: RequestDefinition,
    seen: list[Seen],
    rows: list[tuple[int, str, float]],
    restarts: set[int],
) -> npt.NDArray[np.float32]:
    """As a device does: one by one in order of arrival, starting again now and then."""
    steps: list[tuple[tuple[int, int, int, int], Seen | int]] = [
        ((e.arrived, 0, e.time, e.sequence), e) for e in seen
    ]
    steps += [((row[0], 1, 0, place), place) for place, row in enumerate(rows)]
    evaluator = RequestEvaluator(definition)
    found = np.empty((len(rows), len(definition.feature_names)), np.float32)
    for count, (_, step) in enumerate(sorted(steps, key=lambda entry: entry[0])):
        if count in restarts:
            evaluator = RequestEvaluator.restore(definition, evaluator.snapshot())
        if isinstance(step, int):
            found[step] = evaluator.ask(request_of([rows[step]]))[0]
        else:
            evaluator.observe("seen", events_of([step]))
    return found


@settings(max_examples=300, deadline=None)
@given(EVENTS, REQUESTS)
def test_features_are_what_their_definition_says(
    seen: list[Seen], rows: list[tuple[int, str, float]]
) -> None:
    found = RequestEvaluator(DEFINITION).replay({"seen": events_of(seen)}, request_of(rows))
    names = DEFINITION.feature_names
    expected = [[np.float32(float(row[name])) for name in names] for row in by_force(seen, rows)]
    assert [dict(zip(names, row, strict=True)) for row in found.tolist()] == [
        dict(zip(names, map(float, row), strict=True)) for row in expected
    ]


@settings(max_examples=200, deadline=None)
@given(
    EVENTS,
    REQUESTS,
    st.sets(st.integers(0, 60), max_size=6),
    st.sampled_from([Keep(), Keep(entities=2), Keep(events=5), Keep(events_per_entity=2)]),
)
def test_a_log_at_once_and_piece_by_piece_have_the_same_bits(
    seen: list[Seen], rows: list[tuple[int, str, float]], restarts: set[int], keep: Keep
) -> None:
    definition = define(keep)
    at_once = RequestEvaluator(definition).replay({"seen": events_of(seen)}, request_of(rows))
    assert piecewise(definition, seen, rows, restarts).tobytes() == at_once.tobytes()


def test_the_event_of_the_request_itself_is_never_in_its_window() -> None:
    evaluator = RequestEvaluator(DEFINITION)
    now = 20 * SECOND
    evaluator.observe("seen", events_of([Seen(now, 0, now, "a", "x", 3.0)]))
    row = dict(
        zip(DEFINITION.feature_names, evaluator.ask(request_of([(now, "a", 1.0)]))[0], strict=True)
    )
    assert (row["count"], row["all"], row["last"]) == (0, 0, -3)


def test_what_is_dropped_is_counted() -> None:
    evaluator = RequestEvaluator(define(Keep(events_per_entity=2, entities=1)))
    at = 100 * SECOND
    seen = [
        Seen(at, 0, at, "a", "x", 1.0),
        Seen(at, 0, at, "a", "x", 2.0),
        Seen(at - 50 * SECOND, 0, at, "a", "x", 1.0),
        Seen(at + 9 * SECOND, 0, at, "a", "x", 1.0),
        Seen(at, 1, at, "a", "x", 1.0),
        Seen(at, 2, at, "a", "x", 1.0),
        Seen(at, 0, at, "b", "x", 1.0),
    ]
    evaluator.observe("seen", events_of(seen))
    dropped = evaluator.dropped["seen/place"]
    assert (dropped.duplicate, dropped.expired, dropped.ahead) == (1, 1, 1)
    assert (dropped.overflow, dropped.evicted) == (1, 2)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"place": None}, "fields are missing: place"),
        ({"colour": ["red"]}, "unknown fields: colour"),
        ({"place": [3]}, "place is no column of texts"),
        ({"place": [None]}, "place is missing in row 0"),
        ({"place": ["x" * 65]}, "more than 64 characters"),
        ({"size": ["far"]}, "size is no column of numbers"),
        ({"size": [1e300]}, "size is infinite"),
        ({"size": [1.0, 2.0]}, "different lengths"),
        ({"at_time": [1.5]}, "whole microseconds"),
        ({"at_time": [2**62]}, "beyond"),
    ],
)
def test_bad_requests_are_refused_by_name(change: dict[str, Any], named: str) -> None:
    request = {**request_of([(SECOND, "a", 1.0)]), **change}
    request = {name: column for name, column in request.items() if column is not None}
    with pytest.raises(InvalidInput, match=named):
        RequestEvaluator(DEFINITION).ask(request)


def test_a_clock_that_goes_back_is_refused_and_takes_nothing() -> None:
    evaluator = RequestEvaluator(DEFINITION)
    evaluator.observe("seen", events_of([Seen(9 * SECOND, 0, 9 * SECOND, "a", "x", 1.0)]))
    before = evaluator.snapshot()
    with pytest.raises(InvalidInput, match="order of time"):
        evaluator.ask(request_of([(8 * SECOND, "a", 1.0)]))
    with pytest.raises(InvalidInput, match="order of arrival"):
        evaluator.observe("seen", events_of([Seen(8 * SECOND, 0, 8 * SECOND, "a", "x", 1.0)]))
    assert evaluator.snapshot() == before


def test_a_damaged_or_foreign_state_is_refused() -> None:
    evaluator = RequestEvaluator(DEFINITION)
    evaluator.observe("seen", events_of([Seen(9 * SECOND, 0, 9 * SECOND, "a", "x", 1.0)]))
    data = evaluator.snapshot()
    for cut in range(len(data)):
        with pytest.raises(InvalidInput, match="state"):
            RequestEvaluator.restore(DEFINITION, data[:cut])
    with pytest.raises(InvalidInput, match="another feature definition"):
        RequestEvaluator.restore(define(Keep(entities=3)), data)


def counted(evaluator: RequestEvaluator, now: int) -> dict[str, float]:
    found = evaluator.ask(request_of([(now, "a", 1.0)]))[0].tolist()
    return dict(zip(DEFINITION.feature_names, found, strict=True))


def test_a_clock_that_jumps_far_ahead_empties_windows_and_refuses_until_it_is_right() -> None:
    evaluator, now = RequestEvaluator(DEFINITION), 100 * SECOND
    evaluator.observe("seen", events_of([Seen(now, 0, now, "a", "x", 1.0)]))
    kept_before = evaluator.snapshot()
    far = now + 10**9 * SECOND
    assert counted(evaluator, far)["count"] == 0
    for take in (
        lambda: evaluator.ask(request_of([(now + SECOND, "a", 1.0)])),
        lambda: evaluator.observe("seen", events_of([Seen(now, 1, now, "a", "x", 1.0)])),
    ):
        with pytest.raises(InvalidInput, match="set the clock right"):
            take()
    # What was stored before the jump goes on.
    evaluator = RequestEvaluator.restore(DEFINITION, kept_before)
    assert counted(evaluator, now + SECOND)["count"] == 1


def test_an_event_from_the_future_is_kept_for_its_time_or_counted() -> None:
    evaluator, now = RequestEvaluator(DEFINITION), 100 * SECOND
    near, far = now + 2 * SECOND, now + 2 * SECOND + 1
    evaluator.observe("seen", events_of([Seen(near, 0, now, "a", "x", 1.0)]))
    evaluator.observe("seen", events_of([Seen(far, 0, now, "a", "x", 1.0)]))
    assert evaluator.dropped["seen/place"].ahead == 1
    assert [counted(evaluator, moment)["count"] for moment in (now, near, near + 1)] == [0, 0, 1]
    assert counted(evaluator, far + 1)["count"] == 1


@pytest.mark.parametrize(("arrived", "asked"), [(50, 200), (200, 50)])
def test_a_log_that_begins_before_what_was_taken_is_refused(arrived: int, asked: int) -> None:
    evaluator = RequestEvaluator(DEFINITION)
    evaluator.ask(request_of([(100 * SECOND, "a", 1.0)]))
    came = arrived * SECOND
    events = events_of([Seen(came, 0, came, "a", "x", 1.0)])
    with pytest.raises(InvalidInput, match="begins before what was taken already"):
        evaluator.replay({"seen": events}, request_of([(asked * SECOND, "a", 1.0)]))


@pytest.mark.parametrize("begin", [-(10**15), -1000, 0])
def test_a_log_of_any_year_leaves_the_moment_of_its_end(begin: int) -> None:
    evaluator = RequestEvaluator(DEFINITION)
    for moment in (begin, begin + 1):
        event = events_of([Seen(moment, 0, moment, "a", "x", 1.0)])
        evaluator.replay({"seen": event}, request_of([(moment, "a", 1.0)]))
        assert evaluator.now_us == moment
