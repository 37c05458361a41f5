"""Requests and events in any order, with anything in them: as a plain reference says, bit for bit.

The reference looks at every event for every request, in whole numbers and fractions.
"""

import math
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_core.errors import InvalidInput
from edge_core.features import few, playback
from edge_core.features.columns import MAX_TIME_US
from edge_core.features.logs import Events, Log
from edge_core.features.over_rows import Field
from edge_core.features.over_time import (
    CountWithin,
    DistinctWithin,
    LastWithin,
    MeanWithin,
    SumWithin,
    TimeOperation,
    TimeSince,
)
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.requests import Category, Keep, Number, Request, Stream, Time

from .test_rows import define as of_rows

SECOND = 1_000_000
LSB = Fraction(1, 8)
PLACE, BELL = {"place": "place"}, {"place": "place", "bell": "bell"}
FEATURES: tuple[TimeOperation, ...] = (
    CountWithin(name="count", stream="seen", by=PLACE, within_s=10),
    SumWithin(name="sum", stream="seen", by=PLACE, within_s=10, field="value", default=-1),
    MeanWithin(
        name="mean", stream="seen", by=PLACE, within_s=4, field="value", min_count=2, default=-2
    ),
    LastWithin(
        name="last", stream="seen", by=PLACE, within_s=4, field="value", min_count=2, default=-3
    ),
    TimeSince(name="since", stream="seen", by=PLACE, within_s=7.5, default=-4),
    DistinctWithin(name="kinds", stream="seen", by=PLACE, within_s=10, field="kind", default=-5),
    DistinctWithin(name="values", stream="seen", by=PLACE, within_s=4, field="value", default=-6),
    CountWithin(name="all", stream="seen", within_s=6),
    SumWithin(name="all_sum", stream="seen", within_s=3, field="value", default=-7),
    CountWithin(name="rung", stream="rung", by=BELL, within_s=10),
    LastWithin(name="loud", stream="rung", by=BELL, within_s=10, field="loud", default=-8),
    MeanWithin(name="at_place", stream="rung", by=PLACE, within_s=5, field="loud", default=-9),
)
FIELDS: dict[str, list[Any]] = {
    "seen": [
        Category(name="place"),
        Category(name="kind", null_policy="keep"),
        Number(name="value", unit="m", lsb=0.125, low=-50, high=50, null_policy="keep"),
    ],
    "rung": [
        Category(name="place"),
        Category(name="bell"),
        Number(name="loud", unit="dB", lsb=0.125, low=-50, high=50),
    ],
}
KEEPS = [
    Keep(),
    Keep(entities=1),
    Keep(entities=2),
    Keep(events=3),
    Keep(events_per_entity=1),
    Keep(entities=2, events=5, events_per_entity=3),
]


def define(keep: Keep, ahead_s: float) -> RequestDefinition:
    return RequestDefinition(
        request=Request(
            time="at",
            fields=[Time(name="at"), Category(name="place"), Category(name="bell")],
        ),
        streams=tuple(
            Stream(name=name, fields=fields, keep=keep, max_ahead_s=ahead_s)
            for name, fields in FIELDS.items()
        ),
        features=FEATURES,
        memory_bytes=2**28,
    )


class Event(NamedTuple):
    stream: str
    time: int
    sequence: int
    arrived: int
    fields: dict[str, Any]


class Asked(NamedTuple):
    time: int
    place: str
    bell: str


class Case(NamedTuple):
    events: list[Event]
    asked: list[Asked]


PLACES, BELLS = st.sampled_from(["a", "b", "c"]), st.sampled_from(["x", "y"])
VALUES = st.one_of(st.integers(-120, 120).map(lambda v: v / 16), st.floats(-60, 60, width=32))
BASES = [0, 1_711_846_800 * SECOND, MAX_TIME_US - 60 * SECOND, -MAX_TIME_US + 60 * SECOND]
"""The first moment there is, a usual one, and those near both ends of what is allowed."""


@st.composite
def cases(draw: st.DrawFn) -> Case:
    base = draw(st.sampled_from(BASES))
    moments = st.integers(0, 60).map(lambda half: base + half * SECOND // 2)
    events = []
    for _ in range(draw(st.integers(0, 30))):
        stream, time = draw(st.sampled_from(["seen", "seen", "rung"])), draw(moments)
        delay = draw(st.sampled_from([0, 0, 0, 1, 1, SECOND // 2, 5 * SECOND, 12 * SECOND]))
        delay = draw(st.sampled_from([delay, delay, -delay]))
        fields: dict[str, Any] = {"place": draw(PLACES)}
        if stream == "seen":
            fields["kind"] = draw(st.sampled_from(["x", "y", None]))
            fields["value"] = draw(st.one_of(VALUES, st.just(math.nan)))
        else:
            fields |= {"bell": draw(BELLS), "loud": draw(VALUES)}
        events.append(Event(stream, time, draw(st.integers(0, 3)), time + delay, fields))
    asked = [
        Asked(draw(moments) + draw(st.sampled_from([0, 0, 1, -1])), draw(PLACES), draw(BELLS))
        for _ in range(draw(st.integers(1, 12)))
    ]
    return Case(events, asked)


def log_of(case: Case) -> Log:
    """As columns, in the case's own order."""
    events = {}
    for name, fields in FIELDS.items():
        mine = [event for event in case.events if event.stream == name]
        events[name] = Events(
            [event.time for event in mine],
            [event.sequence for event in mine],
            [event.arrived for event in mine],
            {field.name: [event.fields[field.name] for event in mine] for field in fields},
        )
    request = {
        "at": [asked.time for asked in case.asked],
        "place": [asked.place for asked in case.asked],
        "bell": [asked.bell for asked in case.asked],
    }
    return Log(events, request)


def steps_of(value: float | None) -> int | None:
    """A value in multiples of lsb."""
    if value is None or math.isnan(value):
        return None
    (single,) = struct.unpack("<f", struct.pack("<f", value))
    return min(max(round(Fraction(single) / LSB), -400), 400)


class Reference:
    """One grouping's events, as the policies say in words."""

    def __init__(self, stream: str, by: dict[str, str], keep: Keep, ahead_us: int) -> None:
        self.stream, self.by, self.keep, self.ahead_us = stream, by, keep, ahead_us
        self.features = [f for f in FEATURES if (f.stream, f.by) == (stream, by)]
        self.entities: dict[tuple[str, ...], list[Event]] = {}
        self.used: list[tuple[str, ...]] = []

    def observe(self, event: Event) -> None:
        longest_us = max(round(feature.within_s * SECOND) for feature in self.features)
        if event.time > event.arrived + self.ahead_us or event.time < event.arrived - longest_us:
            return
        key = tuple(event.fields[mine] for mine in self.by)
        held = self.entities.setdefault(key, [])
        self.use(key)
        if (event.time, event.sequence) in [(e.time, e.sequence) for e in held]:
            return
        held.append(event)
        held.sort(key=lambda e: (e.time, e.sequence))
        if len(held) > self.keep.events_per_entity:
            del held[0]
        while len(self.entities) > self.keep.entities or self.events > self.keep.events:
            del self.entities[self.used.pop(0)]

    @property
    def events(self) -> int:
        return sum(map(len, self.entities.values()))

    def use(self, key: tuple[str, ...]) -> None:
        if key in self.entities:
            self.used = [*(other for other in self.used if other != key), key]

    def ask(self, asked: Asked) -> dict[str, float]:
        key = tuple(asked._asdict()[theirs] for theirs in self.by.values())
        self.use(key)
        held = self.entities.get(key, [])
        return {feature.name: value_of(feature, held, asked.time) for feature in self.features}


def value_of(feature: TimeOperation, held: list[Event], now: int) -> float:
    start = now - round(feature.within_s * SECOND)
    window = [event for event in held if start <= event.time < now]
    default = feature.default if feature.default is not None else math.nan
    if isinstance(feature, CountWithin):
        return len(window)
    if isinstance(feature, TimeSince):
        return float(Fraction(now - window[-1].time, SECOND)) if window else default
    values = [event.fields[feature.field] for event in window]
    if feature.field != "kind":
        values = [steps_of(value) for value in values]
    values = [value for value in values if value is not None]
    if len(values) < feature.min_count:
        return default
    if isinstance(feature, DistinctWithin):
        return len(set(values))
    if isinstance(feature, SumWithin):
        return float(sum(values) * LSB)
    if isinstance(feature, MeanWithin):
        # Two roundings to float64, the second exact as lsb is a power of two.
        return float(Fraction(sum(values), len(values))) * float(LSB)
    return float(values[-1] * LSB)


def expected(case: Case, keep: Keep, ahead_us: int) -> list[list[float]]:
    groupings = dict.fromkeys((f.stream, tuple(f.by.items())) for f in FEATURES)
    stores = [Reference(stream, dict(by), keep, ahead_us) for stream, by in groupings]
    steps: list[tuple[tuple[int, int, int, int], Event | int]] = [
        ((e.arrived, 0, e.time, e.sequence), e) for e in case.events
    ]
    steps += [((asked.time, 1, 0, place), place) for place, asked in enumerate(case.asked)]
    found: list[list[float]] = [[] for _ in case.asked]
    for _, step in sorted(steps, key=lambda entry: entry[0]):
        if isinstance(step, int):
            row: dict[str, float] = {}
            for store in stores:
                row |= store.ask(case.asked[step])
            found[step] = [float(np.float32(row[feature.name])) for feature in FEATURES]
        else:
            for store in stores:
                if store.stream == step.stream:
                    store.observe(step)
    return found


@settings(max_examples=200, deadline=None)
@given(
    cases(),
    st.sampled_from(KEEPS),
    st.sampled_from([0.0, 0.5, 20.0]),
    st.lists(st.sampled_from([1, 2, 3, few.MOST + 1]), min_size=1, max_size=4),
    st.integers(1, 20),
)
def test_a_log_at_once_in_any_pieces_and_by_reference_have_the_same_bits(
    case: Case, keep: Keep, ahead_s: float, sizes: list[int], restart_after: int
) -> None:
    definition, log = define(keep, ahead_s), log_of(case)
    at_once = RequestEvaluator(definition).replay(*log)
    played = playback.play(definition, log, sizes=sizes, restart_after=restart_after)
    assert at_once.tolist() == expected(case, keep, round(ahead_s * SECOND))
    assert played.features.tobytes() == at_once.tobytes()


ONE = 2**-4
NUMBERS = st.one_of(
    st.integers(-300, 300).map(lambda quarter: quarter / 4 * ONE),  # every second one is a tie
    st.floats(-40, 40),
    st.floats(-40, 40, width=32),
    st.floats(-(2.0**100), 2.0**100, width=32),
    st.sampled_from([-0.0, 16.0, -9.0, 15.96875, 16.03125, -9.03125, 5e-324, 0.03125 + 1e-12]),
)
SOURCES: list[Callable[[list[float]], Any]] = [
    list,
    lambda values: np.array(values, np.float64),
    lambda values: np.array(values, np.float32),
    lambda values: np.array(values, object),
]


@given(st.lists(NUMBERS, min_size=1, max_size=2 * few.MOST))
def test_numbers_are_rounded_half_to_even_from_any_source(values: list[float]) -> None:
    size = Number(name="size", unit="m", lsb=ONE, low=-9, high=16)
    request = Request(time="at", fields=[Time(name="at"), size])
    definition = of_rows(Field(name="f", input="size"), request=request)
    wanted = []
    for value in values:
        (single,) = struct.unpack("<f", struct.pack("<f", value))
        steps = min(max(round(Fraction(single) / Fraction(ONE)), -144), 256)
        wanted.append(float(steps * Fraction(ONE)))
    for source in SOURCES:
        given_ = {"at": [0] * len(values), "size": source(values)}
        assert RequestEvaluator(definition).ask(given_).tolist() == [[v] for v in wanted]
        assert RequestEvaluator(definition).replay({}, given_).tolist() == [[v] for v in wanted]


@pytest.mark.parametrize("rows", [1, few.MOST + 1])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"loud": math.nan}, "loud is missing in row 0"),
        ({"loud": None}, "loud is missing in row 0"),
        ({"loud": math.inf}, "loud is infinite"),
        ({"loud": -math.inf}, "loud is infinite"),
        ({"loud": 1e39}, "loud is infinite, or too large for float32"),
        ({"loud": "far"}, "loud is no column of numbers"),
        ({"place": None}, "place is missing in row 0"),
        ({"place": 3}, "place is no column of texts"),
        ({"bell": "x" * 65}, "bell has a text of more than 64 characters"),
        ({"event_time": 1.5}, "event_time is no column of whole microseconds"),
        ({"event_time": MAX_TIME_US}, r"event_time is beyond 2\*\*62"),
        ({"sequence": None}, "sequence is missing in row 0"),
        ({"sequence": -(2**63)}, r"sequence is beyond 2\*\*62"),
        ({"arrival": 2**64}, "arrival is"),
        ({"colour": "red"}, "unknown fields: colour"),
    ],
)
def test_events_that_are_unfit_are_refused_by_the_field_and_none_is_taken(
    change: dict[str, Any], named: str, rows: int
) -> None:
    good = {
        "event_time": 5,
        "sequence": 1,
        "arrival": 5,
        "place": "a",
        "bell": "x",
        "loud": 1.0,
    }
    columns = {name: [value] * rows for name, value in good.items()}
    for name, value in change.items():
        columns[name] = [value, *columns.get(name, ["red"] * rows)[1:]]
    stamps = [columns.pop(name) for name in ("event_time", "sequence", "arrival")]
    events = Events(stamps[0], stamps[1], stamps[2], columns)
    evaluator = RequestEvaluator(define(Keep(), 0))
    before = evaluator.snapshot()
    with pytest.raises(InvalidInput, match=named) as refused:
        evaluator.observe("rung", events)
    assert "\n" not in str(refused.value)
    assert evaluator.snapshot() == before
    request = {"at": [9], "place": ["a"], "bell": ["x"]}
    with pytest.raises(InvalidInput, match=named):
        evaluator.replay({"rung": events}, request)
