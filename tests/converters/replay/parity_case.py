"""A definition of requests and a log that has every case which a proof by replay can cover."""

import datetime
from typing import Any

import numpy as np

from converters import zones
from edge_core.features.carried import Calendar, Table
from edge_core.features.logs import Events, Log
from edge_core.features.over_rows import (
    Cyclic,
    Difference,
    Hash,
    Holiday,
    Join,
    Log1p,
    Lookup,
    Missing,
    OneHot,
    TimePart,
)
from edge_core.features.over_time import (
    CountWithin,
    DistinctWithin,
    LastWithin,
    MeanWithin,
    SumWithin,
    TimeSince,
)
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.requests import Category, Keep, Number, Request, Stream, Time

SECOND = 1_000_000
MINUTE = 60 * SECOND
BERLIN = "Europe/Berlin"
PLACE = {"place": "place"}
LANE = {"place": "place", "lane": "lane"}
VALUE = Number(name="value", unit="m", lsb=2**-10, low=-8000, high=8000, null_policy="keep")

DEFINITION = RequestDefinition(
    request=Request(
        time="at",
        fields=[
            Time(name="at"),
            Category(name="place"),
            Category(name="lane"),
            Number(name="size", unit="m", lsb=0.5, low=-10, high=100, null_policy="keep"),
        ],
    ),
    streams=(
        # Events come late, twice, too late, too early, and there is no room for all.
        Stream(
            name="seen",
            fields=[
                Category(name="place"),
                Category(name="kind", null_policy="keep"),
                VALUE,
            ],
            keep=Keep(entities=5, events_per_entity=10),
            max_ahead_s=60,
        ),
        # Events come in order, some time after they happened; training takes them at once.
        Stream(
            name="tolls",
            fields=[Category(name="place"), Category(name="lane"), VALUE],
            keep=Keep(entities=64, events=4096, events_per_entity=1024),
        ),
    ),
    zones=(zones.zone(BERLIN, 2024, 2024),),
    calendars=(Calendar(name="days_off", dates=[datetime.date(2024, 3, 31)]),),
    tables=(Table(name="heights", values={"a": 1.5, "b": 7.25}),),
    features=(
        CountWithin(name="count", stream="seen", by=PLACE, within_s=1800),
        SumWithin(name="sum", stream="seen", by=PLACE, within_s=1800, field="value", default=-1),
        MeanWithin(
            name="mean",
            stream="seen",
            by=PLACE,
            within_s=600,
            field="value",
            min_count=2,
            default=-2,
        ),
        LastWithin(name="last", stream="seen", by=PLACE, within_s=1800, field="value", default=-3),
        TimeSince(name="since", stream="seen", by=PLACE, within_s=1800, default=-4),
        DistinctWithin(
            name="kinds", stream="seen", by=PLACE, within_s=1800, field="kind", default=-5
        ),
        CountWithin(name="all", stream="seen", within_s=300),
        CountWithin(name="tolls_count", stream="tolls", by=LANE, within_s=900),
        SumWithin(
            name="tolls_sum", stream="tolls", by=LANE, within_s=900, field="value", default=-6
        ),
        MeanWithin(
            name="tolls_mean",
            stream="tolls",
            by=LANE,
            within_s=900,
            field="value",
            min_count=2,
            default=-7,
        ),
        LastWithin(
            name="tolls_last", stream="tolls", by=LANE, within_s=900, field="value", default=-8
        ),
        TimeSince(name="tolls_since", stream="tolls", by=LANE, within_s=900, default=-9),
        DistinctWithin(
            name="tolls_lanes", stream="tolls", by=PLACE, within_s=300, field="lane", default=-10
        ),
        Difference(name="busier", input="tolls_count", minus="count"),
        TimePart(name="hour", input="at", zone=BERLIN, part="hour"),
        TimePart(name="utc_hour", input="at", part="hour"),
        Cyclic(name="day", input="at", zone=BERLIN, period="day"),
        Holiday(name="off", input="at", zone=BERLIN, calendar="days_off"),
        OneHot(name="at_place", input="place", values=["a", "b", "c"]),
        Join(name="where", inputs=["place", "lane"]),
        Hash(name="where_code", input="where", buckets=1024),
        Lookup(name="height", input="place", table="heights", default=-11),
        Log1p(name="size_log", input="size", default=-12),
        Missing(name="size_missing", input="size"),
    ),
)

PLACES, LANES = ["a", "b", "c", "d", "e"], ["left", "right", "spare"]
OFTEN = {5: [0.3, 0.3, 0.2, 0.17, 0.03], 3: [0.5, 0.45, 0.05]}
FIRST = int(datetime.datetime(2024, 3, 30, 22, tzinfo=datetime.UTC).timestamp()) * SECOND
HOURS = 5
"""Clocks change in the middle of it."""


def log(seed: int = 3) -> Log:
    """Events and requests of a night."""
    draw = np.random.default_rng(seed)
    seen, tolls = _seen(draw), _tolls(draw)
    at = np.sort(FIRST + draw.integers(0, HOURS * 3600, 200) * SECOND)
    request: dict[str, Any] = {
        "at": at,
        "place": draw.choice(PLACES, 200).tolist(),
        "lane": draw.choice(LANES, 200).tolist(),
        "size": np.where(draw.random(200) < 0.1, np.nan, draw.uniform(-2, 90, 200)),
    }
    # Requests of the very moment of an event, and with one exactly at their window's start.
    for events, spans in ((seen, (0, 1800, 600)), (tolls, (0, 900, 300))):
        times_us = np.asarray(events.times_us)
        column = events.fields["place" if events is seen else "lane"]
        # Every event of what is seldom seen: a window with just one event shows the most.
        seldom = [place for place, name in enumerate(column) if name in (*PLACES[-1:], *LANES[-1:])]
        places = np.concatenate([seldom * 6, draw.choice(len(column), 120)])[:120]
        times = times_us[places]
        moved = times + np.resize([span * SECOND for span in spans], 120)
        moved += np.resize([0, 0, 0, 1, 1, 1], 120)
        request["at"] = np.concatenate([request["at"], moved])
        for name in ("place", "lane"):
            column = events.fields.get(name, ["left"] * len(times_us))
            request[name] += [column[place] for place in places.tolist()]
        request["size"] = np.concatenate([request["size"], np.full(120, 3.5)])
    return Log({"seen": seen, "tolls": tolls}, request)


def _values(draw: np.random.Generator, count: int) -> Any:
    values = draw.uniform(-7000, 9000, count)
    return np.where(draw.random(count) < 0.15, np.nan, values).astype(np.float32)


def _seen(draw: np.random.Generator) -> Events:
    count = 600
    times = FIRST + np.sort(draw.integers(0, HOURS * 3600, count)) * SECOND
    delays = np.where(draw.random(count) < 0.5, 0, draw.integers(0, 900, count))
    delays = np.where(draw.random(count) < 0.03, 1900, delays)
    delays = np.where(draw.random(count) < 0.03, -20, delays)
    delays = np.where(draw.random(count) < 0.03, -90, delays)
    # One place too many in the last hour: others are evicted for it.
    places = draw.choice(PLACES, count, p=OFTEN[5])
    places[(times > FIRST + (HOURS - 1) * 3600 * SECOND) & (draw.random(count) < 0.3)] = "f"
    fields = {
        "place": places.tolist(),
        "kind": draw.choice(np.array(["x", "y", "z", None], object), count).tolist(),
        "value": _values(draw, count),
    }
    once = Events(times, np.arange(count), times + delays * SECOND, fields)
    # Some come twice, the second time with other values.
    twice = np.sort(draw.choice(count, 50, replace=False))
    again = once.only(twice)
    arrived = np.asarray(again.arrived_us) + draw.integers(0, 60, 50) * SECOND
    return Events(
        np.concatenate([times, np.asarray(again.times_us)]),
        np.concatenate([np.arange(count), twice]),
        np.concatenate([np.asarray(once.arrived_us), arrived]),
        {
            "place": fields["place"] + again.fields["place"],
            "kind": fields["kind"] + list(reversed(again.fields["kind"])),
            "value": np.concatenate([fields["value"], _values(draw, 50)]),
        },
    )


def _tolls(draw: np.random.Generator) -> Events:
    count = 700
    times = FIRST + np.sort(draw.integers(0, HOURS * 3600, count)) * SECOND
    delays = np.where(np.arange(count) % 200 < 100, 0, 30)
    return Events(
        times,
        np.arange(count),
        np.maximum.accumulate(times + delays * SECOND),
        {
            "place": draw.choice(PLACES, count, p=OFTEN[5]).tolist(),
            "lane": draw.choice(LANES, count, p=OFTEN[3]).tolist(),
            "value": _values(draw, count),
        },
    )
