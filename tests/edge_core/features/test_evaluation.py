"""Features against exact whole-number arithmetic, and the same bytes whatever the batch."""

import hashlib
import itertools
import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_core.errors import InvalidInput
from edge_core.features import evaluation
from edge_core.features.evaluation import Evaluator, Int32
from edge_core.features.over_samples import Energy, Max, Mean, Min, Range, Std, ZeroCrossings
from edge_core.features.sensors import SensorInput, Window
from edge_core.features.window_definition import WindowDefinition

OPERATIONS = {
    "mean": Mean,
    "std": Std,
    "min": Min,
    "max": Max,
    "range": Range,
    "energy": Energy,
    "zero_crossings": ZeroCrossings,
}


def define(inputs: list[SensorInput], samples: int) -> WindowDefinition:
    """Every operation over every input, the operations mixed."""
    return WindowDefinition(
        inputs=inputs,
        window=Window(samples=samples, hop=1, max_gap_ms=100, rate_hz=50.0),
        features=[
            operation(name=f"{entry.name}_{name}", input=entry.name)
            for entry in inputs
            for name, operation in OPERATIONS.items()
        ],
    )


AXES = [
    SensorInput(name="ax", unit="g", lsb=2**-10, low=-8.0, high=8.0),
    SensorInput(name="ay", unit="g", lsb=0.001, low=-2.0, high=6.0),
    SensorInput(name="gz", unit="rad/s", lsb=0.07, low=-35.0, high=35.0),
]
EVALUATOR = Evaluator(define(AXES, samples=20))
WIDE = SensorInput(name="wide", unit="1", lsb=1.0, low=-(2.0**24 - 1), high=2.0**24 - 1)
EXTREME = Evaluator(define([WIDE], samples=181))
WINDOWS = arrays.arrays(
    np.float32, (4, 20, 3), elements=st.floats(-50, 50, width=32, allow_subnormal=False)
)


def exact(values: list[int], operation: str) -> float:
    """One feature in multiples of lsb, by Python's unbounded integers."""
    count, total, squares = len(values), sum(values), sum(value * value for value in values)
    match operation:
        case "mean":
            return float(Fraction(total, count))
        case "std":
            return math.sqrt(count * squares - total * total) / count
        case "energy":
            return float(squares) / count
        case "min":
            return float(min(values))
        case "max":
            return float(max(values))
        case "range":
            return float(max(values) - min(values))
        case "zero_crossings":
            pairs = itertools.pairwise(values)
            return float(sum((first < 0) != (second < 0) for first, second in pairs))
    raise AssertionError(operation)


def reference(evaluator: Evaluator, quantised: Int32) -> npt.NDArray[np.float32]:
    """All features of float32 [batch, features], one at a time."""
    names = evaluator.definition.input_names
    rows = []
    for window in quantised:
        row = []
        for feature in evaluator.definition.features:
            position = names.index(feature.input)
            lsb = evaluator.definition.inputs[position].lsb
            scales = {"zero_crossings": 1.0, "energy": lsb * lsb}
            steps = [int(value) for value in window[:, position]]
            operation = str(type(feature).__struct_config__.tag)
            row.append(np.float32(exact(steps, operation) * scales.get(operation, lsb)))
        rows.append(row)
    return np.array(rows, dtype=np.float32).reshape(len(quantised), -1)


@settings(max_examples=60, deadline=None)
@given(WINDOWS)
def test_features_are_those_of_whole_number_arithmetic(samples: npt.NDArray[np.float32]) -> None:
    quantised = EVALUATOR.quantise(samples)
    assert EVALUATOR.evaluate(quantised).tobytes() == reference(EVALUATOR, quantised).tobytes()


@settings(max_examples=60, deadline=None)
@given(WINDOWS)
def test_quantising_rounds_half_to_even_and_clips(samples: npt.NDArray[np.float32]) -> None:
    quantised = EVALUATOR.quantise(samples)
    for index, entry in enumerate(AXES):
        for value, steps in zip(
            samples[..., index].ravel().tolist(), quantised[..., index].ravel(), strict=True
        ):
            low, high = round(entry.low / entry.lsb), round(entry.high / entry.lsb)
            assert steps == min(max(round(value / entry.lsb), low), high)


@pytest.mark.parametrize(
    "pattern",
    [[1], [-1], [1, -1], [-1, 1], [1, -1, -1], [1, 0], [-1, 0], [0]],
    ids=str,
)
def test_the_largest_sums_that_a_definition_allows_are_exact(pattern: list[int]) -> None:
    steps = np.resize(np.array(pattern) * (2**24 - 1), 181).astype(np.int32)
    quantised = steps.reshape(1, 181, 1)
    assert np.array_equal(EXTREME.quantise(quantised.astype(np.float64) * 2), quantised)
    found = EXTREME.evaluate(quantised)
    assert found.tobytes() == reference(EXTREME, quantised).tobytes()
    if len(set(pattern)) == 1:
        spread = EXTREME.definition.feature_names.index("wide_std")
        assert found[0, spread] == 0


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.int32, (2, 181, 1), elements=st.integers(0, 3)), st.sampled_from([1, -1]))
def test_a_small_spread_about_a_huge_mean_is_not_lost(
    below: npt.NDArray[np.int32], sign: int
) -> None:
    quantised = sign * (np.int32(2**24 - 1) - below)
    found = EXTREME.evaluate(quantised)
    assert found.tobytes() == reference(EXTREME, quantised).tobytes()
    # Moving every sample by the same whole number leaves the spread as it was.
    spread = EXTREME.definition.feature_names.index("wide_std")
    assert found[:, spread].tolist() == EXTREME.evaluate(below)[:, spread].tolist()


def test_each_operation_by_hand() -> None:
    entry = SensorInput(name="ax", unit="g", lsb=0.5, low=-8.0, high=8.0)
    evaluator = Evaluator(define([entry], samples=4))
    quantised = evaluator.quantise(np.array([[[-1.0], [0.0], [1.0], [-2.0]]]))
    found = dict(zip(OPERATIONS, evaluator.evaluate(quantised)[0].tolist(), strict=True))
    assert found == {
        "mean": -0.5,
        "std": np.float32(math.sqrt(1.25)),
        "min": -2.0,
        "max": 1.0,
        "range": 3.0,
        "energy": 1.5,
        "zero_crossings": 2.0,
    }


@settings(max_examples=60, deadline=None)
@given(WINDOWS, st.lists(st.integers(0, 4), max_size=4))
def test_any_batch_gives_the_same_bytes(samples: npt.NDArray[np.float32], cuts: list[int]) -> None:
    whole = EVALUATOR.evaluate(EVALUATOR.quantise(samples))
    edges = [0, *sorted(cuts), len(samples)]
    parts = [
        EVALUATOR.evaluate(EVALUATOR.quantise(samples[start:stop]))
        for start, stop in itertools.pairwise(edges)
    ]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_memory_layout_and_number_format_change_nothing() -> None:
    samples = np.random.default_rng(1).normal(0, 3, (5, 20, 3)).astype(np.float32)
    whole = EVALUATOR.evaluate(EVALUATOR.quantise(samples)).tobytes()
    spread = np.zeros((10, 40, 6), np.float32)
    spread[::2, ::2, ::2] = samples
    for same in (
        np.asfortranarray(samples),
        spread[::2, ::2, ::2],
        samples.astype(np.float64),
        samples.astype(">f4"),
        samples.tolist(),
    ):
        quantised = EVALUATOR.quantise(same)
        assert EVALUATOR.evaluate(quantised).tobytes() == whole
        assert EVALUATOR.evaluate(np.asfortranarray(quantised)).tobytes() == whole


def test_the_bytes_of_known_samples_never_change() -> None:
    # Formed by whole numbers alone, so that no generator or library can move it.
    steps = (np.arange(7 * 20 * 3, dtype=np.int64) * 7919 % 4001 - 2000).reshape(7, 20, 3)
    quantised = EVALUATOR.quantise(steps.astype(np.float32) / np.float32(256))
    for features in (EVALUATOR.evaluate(quantised), reference(EVALUATOR, quantised)):
        digest = hashlib.sha256(features.astype("<f4").tobytes()).hexdigest()
        assert digest == "2463f262e0defe528608b1c410ff09b19037a0a577c284bed8229f9d6dadb1b9"


def test_no_windows_give_no_rows() -> None:
    empty = EVALUATOR.quantise(np.empty((0, 20, 3)))
    assert EVALUATOR.evaluate(empty).shape == (0, len(EVALUATOR.definition.feature_names))


def test_the_input_is_left_as_it_was() -> None:
    samples = np.linspace(-50, 50, 60, dtype=np.float32).reshape(1, 20, 3)
    kept = samples.copy()
    EVALUATOR.evaluate(EVALUATOR.quantise(samples))
    assert np.array_equal(samples, kept)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_what_is_not_finite_names_its_channel_only(value: float) -> None:
    samples = np.zeros((2, 20, 3))
    samples[1, 7, 1] = value
    with pytest.raises(InvalidInput, match="infinity in ay;"):
        EVALUATOR.quantise(samples)
    samples[0, 3, 2] = value
    with pytest.raises(InvalidInput, match="infinity in ay, gz;"):
        EVALUATOR.quantise(samples)


@pytest.mark.parametrize("shape", [(), (0,), (20,), (20, 2), (4, 20, 4), (3, 20)])
def test_a_wrong_number_of_channels_names_the_channels(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="channels ax, ay, gz"):
        EVALUATOR.quantise(np.zeros(shape))


@pytest.mark.parametrize(
    "samples",
    [
        [["1", "2", "3"]],
        [[None, 1.0, 2.0]],
        [[1.0, 2.0, 3.0], [1.0]],
        [[1j, 0j, 0j]],
        [[True, False, True]],
        [[10**400, 0, 0]],
        object(),
    ],
    ids=["text", "none", "ragged", "complex", "boolean", "huge", "object"],
)
def test_what_is_no_array_of_numbers_is_refused(samples: npt.ArrayLike) -> None:
    with pytest.raises(InvalidInput, match="samples are"):
        EVALUATOR.quantise(samples)


@pytest.mark.parametrize("shape", [(20, 3), (1, 19, 3), (1, 21, 3), (1, 3, 20), (1, 1, 20, 3)])
def test_a_window_of_another_length_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"needed is \[batch, 20, 3\]"):
        EVALUATOR.evaluate(np.zeros(shape, np.int32))


def test_samples_that_nobody_quantised_are_a_bug() -> None:
    with pytest.raises(TypeError, match="int32"):
        EVALUATOR.evaluate(np.zeros((1, 20, 3), np.float32))  # type: ignore[arg-type]  # the bug


def test_the_short_forms_are_the_same_code() -> None:
    samples = np.random.default_rng(2).normal(0, 3, (2, 20, 3)).astype(np.float32)
    quantised = evaluation.quantise(EVALUATOR.definition, samples)
    assert np.array_equal(quantised, EVALUATOR.quantise(samples))
    features = evaluation.evaluate(EVALUATOR.definition, quantised)
    assert features.tobytes() == EVALUATOR.evaluate(quantised).tobytes()
