"""Definitions of requests that cannot be computed are refused: by name, and with what would fit."""

import gc
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge_core.errors import InvalidBundle
from edge_core.features import definition as definitions
from edge_core.features.graph import MAX_DEPTH
from edge_core.features.logs import Events
from edge_core.features.over_time import CountWithin, DistinctWithin, MeanWithin, TimeOperation
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.requests import Category, Keep, Number, Request, Stream, Time

PLAIN: dict[str, Any] = {
    "v": 2,
    "request": {
        "time": "at",
        "fields": [
            {"dtype": "time", "name": "at"},
            {"dtype": "category", "name": "shop"},
            {"dtype": "number", "name": "size", "unit": "m", "lsb": 0.5, "low": 0, "high": 9},
        ],
    },
    "streams": [
        {
            "name": "sales",
            "fields": [
                {"dtype": "category", "name": "shop"},
                {"dtype": "category", "name": "kind", "null_policy": "keep"},
                {"dtype": "number", "name": "price", "unit": "EUR", "lsb": 1, "low": 0, "high": 9},
            ],
        }
    ],
    "zones": [{"name": "Mars", "first_offset_s": 0, "transitions": [[5, 60]], "until_s": 10}],
    "calendars": [{"name": "days", "dates": ["2024-03-31"]}],
    "tables": [{"name": "heights", "values": {"a": 1.5}}],
    "features": [
        {
            "op": "mean",
            "name": "price_1h",
            "stream": "sales",
            "by": {"shop": "shop"},
            "field": "price",
            "within_s": 3600.0,
            "default": 0.0,
        },
        {"op": "scale", "name": "sized", "input": "size"},
        {"op": "one_hot", "name": "shop_is", "input": "shop", "values": ["a", "b"]},
    ],
}


def changed(path: tuple[str | int, ...], value: Any) -> bytes:
    given = json.loads(json.dumps(PLAIN))
    part = given
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    return json.dumps(given).encode()


def test_the_plain_definition_is_read_and_written_the_same() -> None:
    made = definitions.parse(json.dumps(PLAIN).encode())
    data = definitions.serialize(made)
    assert definitions.parse(data) == made
    assert definitions.serialize(definitions.parse(data)) == data


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("features", 0, "op"), "median", "feature price_1h: Invalid value 'median' .* known are "),
        (("features", 0, "stream"), "gone", "feature price_1h: unknown stream gone"),
        (("features", 0, "field"), "gone", "feature price_1h: sales has no field gone"),
        (("features", 0, "field"), "shop", "feature price_1h: shop is no number"),
        (("features", 0, "by"), {"gone": "shop"}, "price_1h: sales has no category gone"),
        (("features", 0, "by"), {"shop": "size"}, "price_1h: the request has no category size"),
        (("features", 0, "by"), {"kind": "shop"}, "no category kind that refuses null"),
        (("features", 0, "within_s"), 0, "feature price_1h: Expected `float` >= 1e-06"),
        (("features", 0, "within_s"), 1e9, "feature price_1h: Expected `float` <= 34560000"),
        (("features", 0, "default"), 1e39, "feature price_1h: Expected `float` <= 3.40"),
        (("features", 0, "default"), "0", "feature price_1h: Expected `float | null`"),
        (("features", 0, "min_count"), 0, "feature price_1h: Expected `int` >= 1"),
        (("features", 0, "median"), 0, "feature price_1h: .*unknown field `median`"),
        (("features", 1, "input"), "gone", "feature sized: unknown input gone"),
        (("features", 1, "input"), "sized", "in a circle: sized -> sized"),
        (("features", 1, "factor"), 1e300, "feature sized: Expected `float` <= 3.40"),
        (("features", 1, "name"), "Größe", "feature Größe: .*regex"),
        (("features", 1, "name"), "a" * 49, "regex"),
        (("features", 2, "values"), ["a", "a"], "feature shop_is: a value stands twice"),
        (("features",), [], "length >= 1"),
        (("request", "fields", 2, "dtype"), "int8", "field size: .*known are category, number"),
        (("request", "fields", 2, "lsb"), 0, "field size: Expected `float` > 0"),
        (("request", "fields", 2, "high"), 1e9, "field size: the range needs more than 24 bits"),
        (("request", "fields", 2), {"dtype": "number", "name": "size"}, "field size: .*`unit`"),
        (("request", "time"), "shop", "time names no time field"),
        (("streams", 0, "fields", 2, "low"), 10, "field price: low has to be below high"),
        (("streams", 0, "keep"), {"entities": 0}, "stream sales: Expected `int` >= 1"),
        (("streams", 0, "keep"), {"entities": 10**7}, "keep fewer entities or events, or raise"),
        (("streams", 0, "max_ahead_s"), 1e300, "stream sales: Expected `float` <= 34560000"),
        (("zones", 0, "transitions"), [[5, 0], [5, 60]], "zone Mars: transitions have to rise"),
        (("zones", 0, "transitions"), [[2**62, 0]], "zone Mars: Expected `int` <="),
        (("zones", 0, "until_s"), 2**62, "zone Mars: Expected `int` <="),
        (("zones", 0, "from_s"), 10, "zone Mars: from_s has to be below until_s"),
        (("zones", 0, "first_offset_s"), 10**6, "zone Mars: an offset exceeds a day"),
        (("calendars", 0, "dates"), ["2024-02-30"], "calendar days: Invalid RFC3339"),
        (("tables", 0, "values"), {"a": 1e300}, "table heights: Expected `float` <="),
        (("memory_bytes",), 10, "the definition allows 10: keep fewer"),
    ],
)
def test_what_does_not_fit_is_named_with_what_would(
    path: tuple[str | int, ...], value: Any, named: str
) -> None:
    with pytest.raises(InvalidBundle, match=named) as refused:
        definitions.parse(changed(path, value))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 200_000,
        b'{"v": 2, "request": ' + b"[" * 200_000,
        b'{"v": 2, "request": ' + b'{"a": ' * 150_000,
        b"\xef\xbb\xbf" + json.dumps(PLAIN).encode(),
        json.dumps(PLAIN).encode("utf-16"),
        json.dumps(PLAIN).replace("3600.0", "NaN").encode(),
        b'{"v": 2, "request": {"\\ud800": 1}}',
        json.dumps(PLAIN).encode()[:-5],
        changed(("features", 0, "op"), "median")[:-2],
    ],
)
def test_bytes_that_are_no_definition_are_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(InvalidBundle, match="feature definition is not valid: ") as refused:
        definitions.parse(data)
    assert len(str(refused.value).splitlines()) == 1


def chain(length: int) -> bytes:
    given = json.loads(json.dumps(PLAIN))
    inputs = [f"f{place + 1}" for place in range(length - 1)] + ["size"]
    given["features"] = [
        {"op": "scale", "name": f"f{place}", "input": name} for place, name in enumerate(inputs)
    ]
    return json.dumps(given).encode()


def test_features_that_build_on_one_another_too_far_are_refused_before_the_stack_ends() -> None:
    definitions.parse(chain(MAX_DEPTH + 1))
    with pytest.raises(InvalidBundle, match="feature f0: more than 64 features build on one"):
        definitions.parse(chain(1000))


def test_a_definition_near_the_limit_of_bytes_is_read() -> None:
    given = json.loads(json.dumps(PLAIN))
    entries = {f"key {place}": float(place) for place in range(45_000)}
    given["tables"].append({"name": "large", "values": entries})
    data = json.dumps(given).encode()
    assert 900_000 < len(data) < definitions.MAX_DEFINITION_BYTES
    assert len(definitions.of_requests(definitions.parse(data)).tables[1].values) == 45_000


BY = {"who": "who"}
COUNT = (CountWithin(name="count", stream="s", by=BY, within_s=3600),)
WINDOWS: tuple[TimeOperation, ...] = tuple(
    feature
    for place in range(12)
    for feature in (
        MeanWithin(
            name=f"mean{place}", stream="s", by=BY, within_s=3600 + place, field="v", default=0
        ),
        DistinctWithin(
            name=f"kinds{place}", stream="s", by=BY, within_s=3600 + place, field="kind", default=0
        ),
    )
)
KINDS = (DistinctWithin(name="kinds", stream="s", within_s=3600, field="kind", default=0),)


@pytest.mark.parametrize(
    ("features", "keep", "entities", "events", "kind"),
    [
        (COUNT, Keep(entities=1024, events=16384), 1024, 1024, lambda _: "x"),
        (COUNT, Keep(entities=16, events=16384), 16, 16384, lambda _: "x"),
        (COUNT, Keep(entities=1024, events=4096), 30_000, 30_000, lambda _: "x"),
        (WINDOWS, Keep(entities=512, events=4096), 512, 512, lambda _: "é" * 64),
        (WINDOWS, Keep(entities=64, events=2048), 64, 2048, lambda n: f"{'é' * 50}{n}"),
        (KINDS, Keep(entities=1, events=8192), 1, 8192, lambda n: f"{'é' * 50}{n}"),
    ],
    ids=["entities", "events", "evicted", "windows", "windows of many", "kinds"],
)
def test_what_is_kept_never_takes_more_than_the_definition_says(
    features: tuple[TimeOperation, ...],
    keep: Keep,
    entities: int,
    events: int,
    kind: Callable[[int], str],
) -> None:
    value = Number(name="v", unit="m", lsb=1.0, low=0, high=1000)
    stream = Stream(
        name="s", fields=[Category(name="who"), Category(name="kind"), value], keep=keep
    )
    definition = RequestDefinition(
        request=Request(time="at", fields=[Time(name="at"), Category(name="who")]),
        streams=(stream,),
        features=features,
    )
    evaluator = RequestEvaluator(definition)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for begin in range(0, events, 1024):
        at = np.arange(begin, min(begin + 1024, events))
        who = [f"{'é' * 50}{place % entities}" for place in at.tolist()]
        fields = {"who": who, "kind": [kind(place) for place in at.tolist()], "v": at % 1000.0}
        evaluator.observe("s", Events(at, at, at, fields))
        asked = list(dict.fromkeys(who))
        evaluator.ask({"at": [int(at[-1]) + 1] * len(asked), "who": asked})
    del fields, who, asked
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    (dropped,) = evaluator.dropped.values()
    assert taken <= definition.state_bytes()
    assert dropped.evicted == max(0, events - keep.entities if entities > keep.entities else 0)
