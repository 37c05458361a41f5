"""A few requests or events, read without arrays: the bits and the refusals of many."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from converters import zones
from edge_core.errors import InvalidInput
from edge_core.features import elementary, few, logs, registered
from edge_core.features.carried import Table
from edge_core.features.logs import Events, Log
from edge_core.features.over_rows import (
    Bucketise,
    Clip,
    Cyclic,
    DaysToHoliday,
    Difference,
    Field,
    Hash,
    Holiday,
    Join,
    Log1p,
    Lookup,
    Missing,
    OneHot,
    OneHotCode,
    Ratio,
    Registered,
    RowOperation,
    Scale,
    TimePart,
)
from edge_core.features.over_time import CountWithin
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.requests import MAX_TEXT, FieldType, Number, Request, Stream, Time

from .test_batches import log
from .test_request_evaluation import DEFINITION as OF_EVENTS
from .test_rows import UNKNOWN, at, define, distance

ZONE = zones.zone("Australia/Lord_Howe", 1971, 2037)
"""Its clocks go forward by half an hour."""
FEATURES: tuple[RowOperation, ...] = (
    Field(name="field", input="x", default=UNKNOWN),
    Missing(name="missing", input="line"),
    Missing(name="missing_number", input="y"),
    Scale(name="scale", input="x", offset=1 / 3, factor=0.1, default=UNKNOWN),
    Log1p(name="log", input="x", default=UNKNOWN),
    Clip(name="clip", input="x", low=-0.0, high=7.5, default=UNKNOWN),
    Ratio(name="ratio", input="x", over="y", default=UNKNOWN),
    Difference(name="difference", input="ratio", minus="y", default=UNKNOWN),
    Bucketise(name="bucket", input="x", edges=[-2.0, 0.0, 3.25], default=1.0),
    OneHotCode(name="bucket_is", input="bucket", codes=3),
    OneHotCode(name="number_is", input="scale", codes=4, default=UNKNOWN),
    Join(name="both", inputs=["place", "line"]),
    OneHot(name="both_are", input="both", values=["a|north", "b|north"], default=UNKNOWN),
    Lookup(name="height", input="both", table="heights", default=UNKNOWN),
    Hash(name="hash", input="both", buckets=1000, default=UNKNOWN),
    TimePart(name="hour", input="at", part="hour", zone=ZONE.name),
    TimePart(name="minute", input="at", part="minute_of_day", zone=ZONE.name),
    TimePart(name="weekday", input="at", part="weekday", zone=ZONE.name),
    TimePart(name="month", input="at", part="month", zone=ZONE.name),
    Cyclic(name="day", input="at", period="day", zone=ZONE.name),
    Cyclic(name="week", input="at", period="week"),
    Cyclic(name="year", input="at", period="year"),
    Holiday(name="holiday", input="at", calendar="days_off"),
    DaysToHoliday(name="to_holiday", input="at", calendar="days_off", limit=9),
    Registered(
        name="distance",
        function="distance",
        version=1,
        sha256=registered.digest(distance),
        inputs=["x", "y"],
        default=UNKNOWN,
    ),
)
DEFINITION = define(*FEATURES, zones=(ZONE,))
ROWS = st.tuples(
    st.integers(at(1972, 1, 1), at(2037, 1, 1)) | st.integers(at(2013, 11, 18), at(2013, 12, 9)),
    st.sampled_from(["a", "b", "z", None]),
    st.sampled_from(["north", None]),
    st.floats(-120, 120) | st.sampled_from([-0.0, 0.125, -0.375, -1.0, math.nan, None]),
    st.floats(-120, 120) | st.integers(-2, 2) | st.none(),
)


def columns(rows: list[Any]) -> dict[str, list[Any]]:
    names = ("at", "place", "line", "x", "y")
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def test_every_operation_is_tried() -> None:
    assert {type(feature) for feature in FEATURES} == set(RowOperation.__args__)


@settings(deadline=None)
@given(st.lists(ROWS, min_size=few.MOST + 1, max_size=3 * few.MOST))
def test_one_request_has_the_bits_that_it_has_among_many(rows: list[Any]) -> None:
    rows.sort(key=lambda row: row[0])
    together = RequestEvaluator(DEFINITION).ask(columns(rows))
    alone, some = RequestEvaluator(DEFINITION), RequestEvaluator(DEFINITION)
    assert b"".join(alone.ask(columns([row])).tobytes() for row in rows) == together.tobytes()
    parts = [rows[begin : begin + 3] for begin in range(0, len(rows), 3)]
    assert b"".join(some.ask(columns(part)).tobytes() for part in parts) == together.tobytes()


@given(st.floats(-1, 1e300, exclude_min=True))
@example(-1 + 2**-53)
@example(5e-324)
def test_one_logarithm_has_the_bits_of_many(value: float) -> None:
    assert elementary.log1p_of(value) == elementary.log1p(np.array([value]))[0]


@given(st.integers(1, 2**58), st.data())
def test_one_angle_has_the_bits_of_many(period: int, data: st.DataObject) -> None:
    turned = data.draw(st.integers(0, period - 1))
    many = np.array(elementary.circle(np.array([turned]), period))[:, 0]
    assert np.array(elementary.circle_of(turned, period)).tobytes() == many.tobytes()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("x", math.inf),
        ("x", 1e39),
        ("x", "many"),
        ("x", True),
        ("x", "5"),
        ("x", 2**60 + 1),
        ("place", 7),
        ("place", "x" * (MAX_TEXT + 1)),
        ("place", b"a"),
        ("at", None),
        ("at", 1.5),
        ("at", 2**62),
        ("at", "now"),
    ],
)
def test_an_odd_value_alone_is_taken_as_among_many(field: str, value: Any) -> None:
    row = dict(
        zip(("at", "place", "line", "x", "y"), (at(2013, 1, 1), "a", None, 1, 2), strict=True)
    )
    alone = {name: [given] for name, given in (row | {field: value}).items()}
    many = {name: [*column, *[row[name]] * few.MOST] for name, column in alone.items()}

    def taken(request: dict[str, Any]) -> str:
        try:
            return RequestEvaluator(DEFINITION).ask(request)[0].tobytes().hex()
        except InvalidInput as error:
            return str(error)

    assert taken(alone) == taken(many)


@pytest.mark.parametrize(
    "change",
    [{"unknown": [1]}, {"x": [1, 2]}, {"x": [[1]]}, {"x": np.array([[1.0]])}, {"x": 1.0}],
    ids=str,
)
def test_odd_columns_are_refused(change: dict[str, Any]) -> None:
    request = {"at": [at(2013, 1, 1)], "place": ["a"], "line": ["b"], "x": [1.0], "y": [2.0]}
    with pytest.raises(InvalidInput):
        RequestEvaluator(DEFINITION).ask(request | change)
    del request["y"]
    with pytest.raises(InvalidInput, match="fields are missing: y"):
        RequestEvaluator(DEFINITION).ask(request)


def test_a_missing_value_is_refused_by_its_row() -> None:
    evaluator = RequestEvaluator(define(Field(name="f", input="x")))
    rows = [(at(2013, 1, 1), "a", "b", x, 1.0) for x in (1.0, 2.0, None)]
    with pytest.raises(InvalidInput, match=r"feature f is missing in row 2, and .* no default"):
        evaluator.ask(columns(rows))


def reciprocal(x: Any) -> Any:
    return np.divide(1.0, x, out=np.zeros_like(x), where=x != 0) + np.copysign(1.0, x)


registered.register("reciprocal", 1)(reciprocal)
ZERO = Scale(name="zero", input="x", factor=-1.0, output=False, default=0)
TAKEN = Registered(
    name="f",
    function="reciprocal",
    version=1,
    sha256=registered.digest(reciprocal),
    inputs=["zero"],
)
HUGE = tuple(
    Scale(name=f"huge_{n}", input=f"huge_{n - 1}" if n else "x", factor=3e38, output=False)
    for n in range(9)
)
NEITHER = Difference(name="neither", input="huge_8", minus="huge_8", output=False)
NORTH = Join(name="both", inputs=["place", "line"], default=1)


@pytest.mark.parametrize(
    "features",
    [
        (Lookup(name="f", input="place", table="heights"),),
        (ZERO, TAKEN),
        (*HUGE, NEITHER, Log1p(name="f", input="neither", default=1)),
        (NORTH, Missing(name="f", input="both")),
        (NORTH, OneHot(name="f", input="both", values=["a|north"], default=2)),
        (NORTH, Hash(name="f", input="both", buckets=9, default=3)),
    ],
    ids=["table", "registered", "no number", "no text", "one of no texts", "code of no text"],
)
@pytest.mark.parametrize("x", [0.0, 1.0, None])
def test_odd_steps_have_the_bits_that_they_have_among_many(
    features: tuple[Any, ...], x: float | None
) -> None:
    heights = (Table(name="heights", values={"a": -0.0}),)
    evaluator = RequestEvaluator(define(*features, tables=heights))
    row = (at(2013, 1, 1), "a", None, x, 1.0)

    def taken(rows: int) -> str:
        try:
            return evaluator.ask(columns([row] * rows))[0].tobytes().hex()
        except InvalidInput as error:
            return str(error)

    assert taken(1) == taken(few.MOST + 1)


@pytest.mark.parametrize("moment", [None, at(2013, 11, 28)])
@pytest.mark.parametrize(
    "feature",
    [
        *(Cyclic(name="f", input="due", period=period) for period in ("day", "week", "year")),
        *(TimePart(name="f", input="due", part=part) for part in ("hour", "weekday", "month")),
        Holiday(name="f", input="due", calendar="days_off"),
        DaysToHoliday(name="f", input="due", calendar="days_off"),
        Missing(name="f", input="due"),
    ],
    ids=lambda feature: type(feature).__name__,
)
def test_a_missing_moment_alone_is_taken_as_among_many(
    feature: RowOperation, moment: int | None
) -> None:
    fields: list[FieldType] = [Time(name="at"), Time(name="due", null_policy="keep")]
    feature = msgspec.structs.replace(feature, default=UNKNOWN)
    evaluator = RequestEvaluator(define(feature, request=Request(time="at", fields=fields)))
    alone = evaluator.ask({"at": [0], "due": [moment]})
    many = evaluator.ask({"at": [0] * (few.MOST + 1), "due": [moment] * (few.MOST + 1)})
    assert alone.tobytes() == many[0].tobytes()


NANOSECONDS = np.datetime64("2013-01-01", "ns")


@pytest.mark.parametrize("rows", [1, few.MOST + 1])
@pytest.mark.parametrize("field", ["at", "x"])
@pytest.mark.parametrize("value", [NANOSECONDS, NANOSECONDS - NANOSECONDS], ids=str)
def test_numpy_s_moments_are_never_taken_for_microseconds(
    field: str, value: Any, rows: int
) -> None:
    request = columns([(at(2013, 1, 1), "a", "b", 1.0, 1.0)] * rows)
    with pytest.raises(InvalidInput, match=f"{field} is no column of"):
        RequestEvaluator(DEFINITION).ask(request | {field: np.array([value] * rows)})


@pytest.mark.parametrize("bad", [[[1], [1, 2]], [[1, None]], [[]]], ids=str)
def test_moments_in_moments_are_refused(bad: list[Any]) -> None:
    request = columns([(at(2013, 1, 1), "a", "b", 1.0, 1.0)])
    with pytest.raises(InvalidInput, match=r"at is no flat column|at has shape"):
        RequestEvaluator(DEFINITION).ask(request | {"at": bad})


@pytest.mark.parametrize("rows", [1, few.MOST + 1])
def test_whole_numbers_of_a_list_and_of_an_array_are_the_same(rows: int) -> None:
    large = Number(name="x", unit="", lsb=2.0**31, low=0, high=2.0**54.9)
    request = Request(time="at", fields=[Time(name="at"), large])
    definition = define(Field(name="f", input="x"), request=request)
    # float64 makes a tie for float32 of it, which int64 is not.
    values = [2**54 + 2**30 + 1] * rows
    for source in (values, np.array(values), np.array(values, np.uint64)):
        found = RequestEvaluator(definition).ask({"at": [1] * rows, "x": source})
        assert found.tolist() == [[2.0**54]] * rows


@pytest.mark.parametrize("x", [2**53 + 1, -(2**63) - 1, 2**64, 10**30, 10**38])
def test_large_whole_numbers_travel_with_a_sample(x: int) -> None:
    request = columns([(at(2013, 1, 1), "a", "b", x, 1.0)])
    read = logs.unpack(logs.pack(Log({}, request))).request
    evaluator = RequestEvaluator(DEFINITION)
    assert evaluator.ask(read).tobytes() == evaluator.ask(request).tobytes()


def test_no_requests_have_no_rows() -> None:
    assert RequestEvaluator(DEFINITION).ask(columns([])).shape == (0, len(DEFINITION.feature_names))


@pytest.mark.parametrize("late", [0.0, 0.1])
def test_few_events_leave_the_memory_of_many(late: float) -> None:
    events, _ = log(3, late)
    many, each = RequestEvaluator(OF_EVENTS), RequestEvaluator(OF_EVENTS)
    many.observe("seen", Events(**events))
    for place in range(len(events["times_us"])):
        each.observe("seen", Events(**events).only(np.array([place])))
    assert many.snapshot() == each.snapshot()


@pytest.mark.parametrize("count", [0, 1, 2, few.MOST, few.MOST + 1])
def test_events_without_fields_are_taken_however_many_come(count: int) -> None:
    bells = Stream(name="bells", fields=[])
    definition = define(CountWithin(name="rung", stream="bells", within_s=1), streams=(bells,))
    evaluator = RequestEvaluator(definition)
    times = list(range(count))
    observed = evaluator.observe("bells", Events(times, times, [count] * count, {}))
    assert observed.taken == count
    request = columns([(count, "a", "b", 1.0, 1.0)])
    assert evaluator.ask(request).tolist() == [[count]]


@pytest.mark.parametrize("count", [1, few.MOST, few.MOST + 1, 100])
def test_requests_asked_together_see_what_each_would(count: int) -> None:
    events, request = log(5, 0.1)
    rows = {name: np.asarray(column)[:count].tolist() for name, column in request.items()}
    rows["at_time"] = [int(events["arrived_us"][-1]) + step for step in range(count)]
    together, alone = RequestEvaluator(OF_EVENTS), RequestEvaluator(OF_EVENTS)
    for evaluator in (together, alone):
        evaluator.observe("seen", Events(**events))
    each = [
        alone.ask({n: column[row : row + 1] for n, column in rows.items()}) for row in range(count)
    ]
    assert together.ask(rows).tobytes() == np.concatenate(each).tobytes()
    assert together.snapshot() == alone.snapshot()
