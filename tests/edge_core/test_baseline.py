"""The fallback computes exactly what its file says, and refuses a file that says nonsense."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_core import baseline
from edge_core.baseline import LogisticBaseline
from edge_core.errors import InvalidBundle

TWO = LogisticBaseline(
    features=["a", "b"],
    mean=[1.0, -2.0],
    scale=[2.0, 0.5],
    weights=[[1.0, 0.0, -1.0], [0.0, 3.0, 0.25]],
    bias=[0.5, 0.0, -0.5],
)
FINITE = st.floats(-baseline.LARGEST, baseline.LARGEST)
MODERATE = st.floats(-1e6, 1e6)


@st.composite
def baselines(draw: st.DrawFn, numbers: st.SearchStrategy[float] = FINITE) -> LogisticBaseline:
    rows, classes = draw(st.integers(1, 5)), draw(st.integers(1, 4))

    def several(values: st.SearchStrategy[Any], count: int) -> Any:
        return draw(st.lists(values, min_size=count, max_size=count))

    return LogisticBaseline(
        features=[f"f{number}" for number in range(rows)],
        mean=several(numbers, rows),
        scale=several(st.floats(1e-3, 1e3), rows),
        weights=[several(numbers, classes) for _ in range(rows)],
        bias=several(numbers, classes),
    )


@given(baselines())
def test_a_baseline_comes_back_as_it_went(simple: LogisticBaseline) -> None:
    data = baseline.serialize(simple)
    assert baseline.parse(data) == simple
    assert baseline.serialize(baseline.parse(data)) == data


def test_the_file_can_be_read_by_a_person() -> None:
    lines = baseline.serialize(TWO).decode().splitlines()
    assert lines[:3] == ["{", ' "v": 1,', ' "features": [']


def test_logits_are_scaled_and_weighted_by_hand() -> None:
    rows = np.array([[1, -2], [5, -1]], np.float32)
    logits = TWO.logits(rows, ["a", "b"])
    assert logits.dtype == np.float32
    # The second row is 2 deviations up on both: 2 * [1, 0, -1] + 2 * [0, 3, 0.25] + bias.
    assert logits.tolist() == [[0.5, 0.0, -0.5], [2.5, 6.0, -2.0]]


def test_features_are_found_by_name_wherever_they_stand() -> None:
    rows = np.array([[1, -2], [5, -1]], np.float32)
    wide = np.full((2, 4), np.nan, np.float32)
    wide[:, 3], wide[:, 1] = rows[:, 0], rows[:, 1]
    found = TWO.logits(wide, ["x", "b", "y", "a"])
    assert found.tobytes() == TWO.logits(rows, ["a", "b"]).tobytes()


def test_a_feature_that_is_not_there_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="'b'"):
        TWO.logits(np.zeros((1, 1), np.float32), ["a"])


def test_no_rows_give_no_logits() -> None:
    assert TWO.logits(np.zeros((0, 2), np.float32), ["a", "b"]).shape == (0, 3)


@given(baselines(MODERATE), st.data())
def test_logits_agree_with_plain_sums(simple: LogisticBaseline, data: st.DataObject) -> None:
    width = len(simple.features)
    row = data.draw(st.lists(st.floats(-100, 100, width=32), min_size=width, max_size=width))
    found = simple.logits(np.array([row], np.float32), simple.features)[0]
    scaled = [(x - m) / s for x, m, s in zip(row, simple.mean, simple.scale, strict=True)]
    for column, bias in enumerate(simple.bias):
        terms = [z * w[column] for z, w in zip(scaled, simple.weights, strict=True)]
        # Terms may cancel, so the error is measured against their size.
        size = abs(bias) + sum(map(abs, terms))
        assert abs(found[column] - (bias + sum(terms))) <= 1e-6 * size + 1e-30


def document(**changes: object) -> bytes:
    return json.dumps(json.loads(baseline.serialize(TWO)) | changes).encode()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"v": 0}, "fallback has version 0; known is 1"),
        ({"v": 2, "features": 7}, "fallback has version 2; known is 1"),
        ({"v": "1"}, r"at `\$\.v`"),
        ({"surprise": 1}, "unknown field `surprise`"),
        ({"features": []}, "length >= 1"),
        ({"features": ["a"]}, "one entry per feature"),
        ({"mean": [1.0]}, "one entry per feature"),
        ({"scale": [1.0, 1.0, 1.0]}, "one entry per feature"),
        ({"weights": [[1.0, 0.0, -1.0]]}, "one entry per feature"),
        ({"weights": [[1.0, 0.0, -1.0], [0.0, 3.0]]}, "one entry per class"),
        ({"bias": [0.0]}, "one entry per class"),
        ({"scale": [2.0, 0.0]}, "scale has to be positive"),
        ({"scale": [2.0, -0.5]}, "scale has to be positive"),
        ({"mean": [1.0, None]}, "got `null`"),
        ({"bias": [0.0, float("inf"), 0.0]}, "not valid"),
    ],
)
def test_a_file_that_says_nonsense_is_refused(changes: dict[str, object], words: str) -> None:
    baseline.parse(document())
    with pytest.raises(InvalidBundle, match=words):
        baseline.parse(document(**changes))


@pytest.mark.parametrize("field", ["mean", "scale", "bias", "weights"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_no_file_can_hold_is_not_constructed(field: str, value: float) -> None:
    parts: dict[str, Any] = {"features": ["a"], "mean": [0.0], "scale": [1.0], "bias": [0.0]}
    parts |= {"weights": [[0.0]]}
    LogisticBaseline(**parts)
    parts[field] = [[value]] if field == "weights" else [value]
    with pytest.raises(ValueError, match="finite"):
        LogisticBaseline(**parts)


def test_a_file_over_the_limit_is_refused_unread() -> None:
    data = document()
    fitting = data + b" " * (baseline.MAX_BASELINE_BYTES - len(data))
    assert baseline.parse(fitting) == TWO
    with pytest.raises(InvalidBundle, match="has 1048577 bytes; the limit is 1048576"):
        baseline.parse(fitting + b" ")


HOSTILE = {
    "nothing": b"",
    "no object": b"[]",
    "no version": b"{}",
    "cut": document()[:-1],
    "not UTF-8": b'{"v": 1, "features": ["\xff"]}',
    "deep": b'{"v": ' + b"[" * 100_000,
    "deep after the version": b'{"v": 1, "features": ' + b"[" * 100_000,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_bytes_that_are_no_fallback_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidBundle, match="fallback is not valid"):
        baseline.parse(data)


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    with pytest.raises(InvalidBundle):
        baseline.parse(data)
