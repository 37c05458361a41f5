"""Row operations by hand, with values missing, and alone as among others."""

import datetime
import hashlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_core.errors import InvalidBundle, InvalidInput
from edge_core.features import registered
from edge_core.features.carried import Calendar, Table
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
    OverRows,
    Ratio,
    Registered,
    Scale,
    TimePart,
)
from edge_core.features.over_time import OverTime
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.requests import Category, Number, Request, Time
from edge_core.features.rows import hashed


def define(*features: OverRows | OverTime, **changes: Any) -> RequestDefinition:
    given: dict[str, Any] = {
        "request": Request(
            time="at",
            fields=[
                Time(name="at"),
                Category(name="place", null_policy="keep"),
                Category(name="line", null_policy="keep"),
                Number(name="x", unit="m", lsb=0.25, low=-100, high=100, null_policy="keep"),
                Number(name="y", unit="m", lsb=0.25, low=-100, high=100, null_policy="keep"),
            ],
        ),
        "calendars": (Calendar(name="days_off", dates=[datetime.date(2013, 11, 28)]),),
        "tables": (Table(name="heights", values={"a": 1.5, "b|north": 7.0}),),
        "features": features,
    }
    return RequestDefinition(**(given | changes))


def at(year: int, month: int, day: int, hour: int = 0) -> int:
    moment = datetime.datetime(year, month, day, hour, tzinfo=datetime.UTC)
    return int(moment.timestamp()) * 1_000_000


REQUEST = {
    "at": [at(2013, 11, 28, 6), at(2013, 11, 25), at(2013, 12, 2), at(2014, 1, 1)],
    "place": ["a", "b", "z", None],
    "line": ["north", "north", None, "south"],
    "x": [1.0, -2.0, 3.13, math.nan],
    "y": [4.0, 0.0, -1.0, 2.0],
}
THREE: dict[str, Any] = {name: values[:3] for name, values in REQUEST.items()}
UNKNOWN = -9.0


def computed(*features: OverRows, request: dict[str, Any] = REQUEST) -> list[list[float]]:
    """Each row's inputs, in the order of the request."""
    found = RequestEvaluator(define(*features)).replay({}, request)
    return [list(row) for row in found.tolist()]


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        (Field(name="f", input="x", default=UNKNOWN), [[1], [-2], [3.25], [UNKNOWN]]),
        (Missing(name="f", input="x"), [[0], [0], [0], [1]]),
        (Missing(name="f", input="line"), [[0], [0], [1], [0]]),
        (
            Scale(name="f", input="x", offset=1, factor=2, default=UNKNOWN),
            [[0], [-6], [4.5], [UNKNOWN]],
        ),
        (
            Log1p(name="f", input="x", default=UNKNOWN),
            [[math.log(2)], [UNKNOWN], [math.log(4.25)], [UNKNOWN]],
        ),
        (Clip(name="f", input="x", low=-1, high=2, default=UNKNOWN), [[1], [-1], [2], [UNKNOWN]]),
        (
            Ratio(name="f", input="x", over="y", default=UNKNOWN),
            [[0.25], [UNKNOWN], [-3.25], [UNKNOWN]],
        ),
        (
            Difference(name="f", input="x", minus="y", default=UNKNOWN),
            [[-3], [-2], [4.25], [UNKNOWN]],
        ),
        (
            Bucketise(name="f", input="x", edges=[-2, 1, 3], default=UNKNOWN),
            [[2], [1], [3], [UNKNOWN]],
        ),
        (
            OneHot(name="f", input="place", values=["b", "a"], default=UNKNOWN),
            [[0, 1, 0], [1, 0, 0], [0, 0, 1], [UNKNOWN] * 3],
        ),
        (
            Lookup(name="f", input="place", table="heights", default=UNKNOWN),
            [[1.5], [UNKNOWN], [UNKNOWN], [UNKNOWN]],
        ),
        (
            Hash(name="f", input="place", buckets=1000, default=UNKNOWN),
            [[hashed(text, 1000)] for text in "abz"] + [[UNKNOWN]],
        ),
        (TimePart(name="f", input="at", part="hour"), [[6], [0], [0], [0]]),
        (TimePart(name="f", input="at", part="weekday"), [[3], [0], [0], [2]]),
        (Cyclic(name="f", input="at", period="day"), [[1, 0], [0, 1], [0, 1], [0, 1]]),
        (Holiday(name="f", input="at", calendar="days_off"), [[1], [0], [0], [0]]),
        (
            DaysToHoliday(name="f", input="at", calendar="days_off", limit=10),
            [[0], [3], [-4], [-10]],
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_operation_by_hand(feature: OverRows, expected: list[list[float]]) -> None:
    assert computed(feature) == [[float(np.float32(v)) for v in row] for row in expected]


def test_codes_of_texts_never_change() -> None:
    """BLAKE2b of eight bytes, read from the lowest on, as other programs compute it."""
    codes = [hashed(text, 1000) for text in ("a", "b", "z", "Zürich")]
    assert codes == [928, 668, 916, 368]


def test_operations_build_on_one_another_in_any_order() -> None:
    found = computed(
        Lookup(name="height", input="where", table="heights", default=0.0),
        OneHotCode(name="bucket_is", input="bucket", codes=2),
        Join(name="where", inputs=["place", "line"]),
        Bucketise(name="bucket", input="x", edges=[0, 3], output=False),
        request=THREE,
    )
    assert found == [[0, 0, 1, 0], [7, 1, 0, 0], [0, 0, 0, 1]]


def test_a_missing_value_without_a_default_is_refused_by_its_feature_and_row() -> None:
    with pytest.raises(InvalidInput, match=r"feature f is missing in row 3, and .* no default"):
        computed(Field(name="f", input="x"))


HUGE = (
    Scale(name="large", input="x", factor=3e38, default=0, output=False),
    Scale(name="larger", input="large", factor=3e38, default=0, output=False),
    Ratio(name="share", input="larger", over="larger", default=0),
)


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize(
    "feature",
    [
        Ratio(name="f", input="large", over="y", default=0),
        Scale(name="f", input="larger", factor=3e38),
        Difference(name="f", input="larger", minus="large"),
    ],
    ids=lambda feature: type(feature).__name__,
)
def test_a_value_too_large_for_float32_is_refused_by_its_feature_and_row(
    feature: OverRows, rows: int
) -> None:
    request: dict[str, Any] = {
        "at": [0] * rows,
        "place": ["a"] * rows,
        "line": ["n"] * rows,
        "x": [*[0.25] * (rows - 1), 90.0],
        "y": [*[100.0] * (rows - 1), 0.25],
    }
    if not isinstance(feature, Ratio):
        request["x"][:-1] = [0.0] * (rows - 1)
    with pytest.raises(InvalidInput, match=f"feature f is too large for float32 in row {rows - 1}"):
        RequestEvaluator(define(*HUGE, feature)).ask(request)


@pytest.mark.parametrize("rows", [1, 9])
def test_half_a_character_is_refused(rows: int) -> None:
    request = {name: [column[0]] * rows for name, column in REQUEST.items()}
    request["place"][-1] = "\ud800"
    with pytest.raises(InvalidInput, match="place has a text with half a character"):
        RequestEvaluator(define(Hash(name="f", input="place", buckets=9))).ask(request)
    request["place"][-1] = "Škoda 東京 🚲"
    assert RequestEvaluator(define(Hash(name="f", input="place", buckets=9))).ask(request).any()


def test_one_row_alone_has_the_bits_that_it_has_among_others() -> None:
    features = (
        Log1p(name="a", input="x", default=0),
        Ratio(name="b", input="a", over="y", default=0),
        Cyclic(name="c", input="at", period="year"),
    )
    draw = np.random.default_rng(5)
    request = {
        "at": sorted((draw.integers(0, 2**50, 200)).tolist()),
        "place": ["a"] * 200,
        "line": ["n"] * 200,
        "x": draw.uniform(-2, 90, 200),
        "y": draw.uniform(-2, 90, 200),
    }
    evaluator = RequestEvaluator(define(*features))
    alone = [
        RequestEvaluator(define(*features)).ask({n: v[row : row + 1] for n, v in request.items()})
        for row in range(200)
    ]
    assert np.concatenate(alone).tobytes() == evaluator.ask(request).tobytes()


@registered.register("distance", 1)
def distance(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.sqrt(x * x + y * y)


def call(**changes: Any) -> Registered:
    given: dict[str, Any] = {
        "name": "f",
        "function": "distance",
        "version": 1,
        "sha256": registered.digest(distance),
        "inputs": ["x", "y"],
        "default": UNKNOWN,
    }
    return Registered(**(given | changes))


def test_a_registered_function_is_called_with_whole_columns() -> None:
    assert computed(call())[:2] == [[np.float32(math.sqrt(17))], [2.0]]
    assert computed(call())[3] == [UNKNOWN]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"version": 2}, "not registered here"),
        ({"function": "gone"}, "not registered here"),
        ({"sha256": "0" * 64}, "other source"),
    ],
)
def test_a_function_that_is_not_the_one_of_the_release_is_refused(
    change: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidBundle, match=named):
        computed(call(**change))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Installs a package with a module of functions."""

    def install(source: str) -> None:
        folder = tmp_path / "own_functions-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: own-functions\nVersion: 1.0\n"
        )
        (folder / "entry_points.txt").write_text("[serinus.functions]\nown = own_functions\n")
        (tmp_path / "own_functions.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "own_functions", raising=False)
        registered._import_packages.cache_clear()

    return install


OWN = """
from edge_core.features.registered import register

@register("own_sum", 3)
def own_sum(x, y):
    return x + y
"""


def test_functions_come_with_packages(installed: Callable[[str], None]) -> None:
    installed(OWN)
    sha256 = hashlib.sha256(OWN.split("\n\n", 1)[1].encode()).hexdigest()
    found = computed(call(function="own_sum", version=3, sha256=sha256))
    assert found[:2] == [[5.0], [-2.0]]
    with pytest.raises(InvalidBundle, match="other source"):
        computed(call(function="own_sum", version=3))


def test_a_package_that_fails_is_named(installed: Callable[[str], None]) -> None:
    installed("import nothing_of_this_name")
    with pytest.raises(InvalidBundle, match="package own-functions cannot be imported"):
        computed(call(function="gone"))


def test_a_name_and_version_are_never_another_function() -> None:
    registered.register("distance", 1)(distance)
    with pytest.raises(ValueError, match="other source"):
        registered.register("distance", 1)(lambda x, y: x + y)


@pytest.mark.parametrize(
    ("features", "named"),
    [
        (
            [Ratio(name="a", input="b", over="x"), Scale(name="b", input="a")],
            "in a circle: a -> b -> a",
        ),
        ([Scale(name="a", input="gone")], "unknown input gone"),
        ([Scale(name="a", input="place")], "place is a text; Scale takes a number"),
        ([OneHot(name="a", input="x", values=["1"])], "x is a number; OneHot takes a text"),
        (
            [Cyclic(name="a", input="at", period="day"), Scale(name="b", input="a")],
            "more than one column",
        ),
        ([Scale(name="x", input="y")], "a field of the request has this name"),
        ([Scale(name="a", input="x"), Scale(name="a", input="y")], "same name: a"),
        ([Lookup(name="a", input="place", table="none")], "carries no table none"),
        ([Holiday(name="a", input="at", calendar="none")], "carries no calendar none"),
        ([TimePart(name="a", input="at", part="hour", zone="Mars")], "carries no zone Mars"),
        ([Scale(name="a", input="x", output=False)], "0 columns"),
    ],
)
def test_definitions_that_cannot_be_computed_say_why(features: list[OverRows], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        define(*features)
