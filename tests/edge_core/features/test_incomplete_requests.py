"""Requests that lack fields: what depends on them is unknown, everything else is as ever."""

import numpy as np
import pytest

from edge_core.errors import InvalidInput
from edge_core.features.carried import Table
from edge_core.features.incomplete_requests import Completion
from edge_core.features.over_rows import Field, Log1p, Lookup, Ratio
from edge_core.features.over_time import CountWithin
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.requests import Category, Number, Request, Stream, Time

NOW = 1_700_000_000_000_000
DEFINITION = RequestDefinition(
    request=Request(
        time="at",
        fields=[
            Time(name="at"),
            Category(name="place"),
            Category(name="kind"),
            Number(name="size", unit="kg", lsb=0.25, low=0, high=100),
            Number(name="cost", unit="EUR", lsb=0.25, low=0, high=100),
            Number(name="note", unit="1", lsb=1, low=0, high=9, null_policy="keep"),
        ],
    ),
    streams=(Stream(name="parcels", fields=[Category(name="place")]),),
    tables=(Table(name="weights", values={"box": 2.0, "bag": 1.0}),),
    features=(
        CountWithin(name="count", stream="parcels", by={"place": "place"}, within_s=60),
        CountWithin(name="all", stream="parcels", within_s=60),
        Lookup(name="weight", input="kind", table="weights"),
        Log1p(name="log_size", input="size"),
        Ratio(name="per_kg", input="cost", over="size"),
        Ratio(name="per_log", input="cost", over="log_size"),
        Field(name="remark", input="note", default=0),
    ),
)
NAMES = DEFINITION.feature_names
NEEDS = {
    "place": {"count"},
    "kind": {"weight"},
    "size": {"log_size", "per_kg", "per_log"},
    "cost": {"per_kg", "per_log"},
}


def request(rows: int) -> dict[str, list[object]]:
    return {
        "at": [NOW + row for row in range(rows)],
        "place": ["a"] * rows,
        "kind": ["box", "bag"] * (rows // 2) + ["box"] * (rows % 2),
        "size": [2.0] * rows,
        "cost": [8.0] * rows,
        "note": [None] * rows,
    }


@pytest.mark.parametrize("name", NEEDS)
@pytest.mark.parametrize("absent", [False, True])
def test_only_what_needs_a_missing_field_is_unknown(name: str, absent: bool) -> None:
    rows = 3
    whole = RequestEvaluator(DEFINITION).ask(request(rows))
    given = request(rows)
    given[name][1] = None
    if absent:
        del given[name]
    completion = Completion(DEFINITION)
    found = completion.completed(given, rows, NOW)
    assert found is not None
    assert found.rows.tolist() == ([True] * 3 if absent else [False, True, False])
    evaluator = RequestEvaluator(DEFINITION)
    features = evaluator.ask(found.request).copy()
    numbers = evaluator.numbers(found.request).copy()
    completion.blank(features, numbers, found.missing)
    for row in range(rows):
        lacks = bool(found.rows[row])
        unknown = {NAMES[place] for place in np.flatnonzero(np.isnan(features[row]))}
        assert unknown == (NEEDS[name] if lacks else set())
        known = [NAMES.index(n) for n in NAMES if n not in unknown]
        assert features[row, known].tobytes() == whole[row, known].tobytes()
        inputs = DEFINITION.input_names
        nulls = {inputs[place] for place in np.flatnonzero(np.isnan(numbers[row, 0]))}
        assert nulls == {"note"} | ({name} & set(inputs) if lacks else set())


def test_a_whole_request_is_left_alone() -> None:
    assert Completion(DEFINITION).completed(request(2), 2, NOW) is None


def test_numpy_s_columns_are_taken_too() -> None:
    given: dict[str, object] = dict(request(2)) | {"size": np.array([np.nan, 1], np.float32)}
    found = Completion(DEFINITION).completed(given, 2, NOW)  # type: ignore[arg-type]  # columns
    assert found is not None
    assert {name: rows.tolist() for name, rows in found.missing.items()} == {"size": [True, False]}


@pytest.mark.parametrize("column", [[1.0], [1.0, 2.0, 3.0], 1.0, [[1.0], [2.0, 3.0]]])
def test_what_is_no_column_is_refused(column: object) -> None:
    given: dict[str, object] = dict(request(2)) | {"size": column, "cost": [None, None]}
    completion = Completion(DEFINITION)
    if column == [[1.0], [2.0, 3.0]]:
        found = completion.completed(given, 2, NOW)  # type: ignore[arg-type]  # of a test
        assert found is not None
        with pytest.raises(InvalidInput):
            RequestEvaluator(DEFINITION).ask(found.request)
        return
    with pytest.raises(InvalidInput, match="no flat column of 2 values"):
        completion.completed(given, 2, NOW)  # type: ignore[arg-type]  # of a test
