"""Ranges from what tensors held."""

import numpy as np
import pytest

from converters import calibration
from converters.calibration import BINS, LEAST_ROWS, METHODS, Spread
from converters.tensors import TensorSpec
from edge_core.errors import InvalidInput

SPECS = (TensorSpec(name="x", shape=(3,)),)


def spread_of(values):
    def watch(rows):
        # In uneven batches, as runs of models come.
        for part in np.array_split(rows["x"], 3):
            yield {"x": part}

    return calibration.spreads(watch, {"x": np.float32(values)}, counted=True)["x"]


def range_of(values, method):
    return calibration.ranges({"x": spread_of(values)}, method)["x"]


@pytest.fixture
def normal():
    return np.random.default_rng(0).normal(size=20_000).astype(np.float32)


def test_extremes_are_those_of_all_rows(normal):
    assert range_of(normal, "min/max") == (float(normal.min()), float(normal.max()))


def test_every_value_is_counted(normal):
    assert spread_of(normal).counts.sum() == len(normal)


@pytest.mark.parametrize("method", METHODS)
def test_ranges_hold_zero(method):
    low, high = range_of(np.linspace(5, 9, 1000), method)
    assert low == 0
    assert high >= 5 or method == "entropy"
    low, high = range_of(np.linspace(-9, -5, 1000), method)
    assert high == 0


@pytest.mark.parametrize("method", METHODS)
def test_no_method_widens_the_extremes(normal, method):
    low, high = range_of(normal, method)
    assert normal.min() <= low < 0 < high <= normal.max()


def test_percentile_cuts_off_a_lonely_outlier(normal):
    low, high = range_of(np.append(normal, 100.0), "percentile")
    width = 2 * 100 / BINS
    expected = np.quantile(normal, [0.00005, 0.99995])
    assert low == pytest.approx(expected[0], abs=2 * width + 0.3)
    assert high == pytest.approx(expected[1], abs=2 * width + 0.3)


def test_percentile_keeps_what_is_not_rare(normal):
    values = np.append(normal, np.full(len(normal) // 100, 10.0))
    assert range_of(values, "percentile")[1] == pytest.approx(10.0, abs=0.02)


def test_entropy_cuts_off_a_lonely_outlier(normal):
    assert range_of(np.append(normal, 30.0), "entropy")[1] < 10


def test_entropy_keeps_an_even_distribution():
    low, high = range_of(np.linspace(-1, 1, 100_000), "entropy")
    assert low == pytest.approx(-1, abs=0.02)
    assert high == pytest.approx(1, abs=0.02)


def test_divergence_is_nothing_where_int8_loses_nothing():
    # As many levels as bins: every bin is a level of its own.
    counts = np.random.default_rng(1).integers(1, 50, 256).astype(float)
    assert calibration.divergence(counts, 256, 256) == pytest.approx(0, abs=1e-12)


def test_divergence_grows_with_what_is_cut_off():
    counts = np.ones(512)
    losses = [calibration.divergence(counts, end, 128) for end in (128, 256, 384, 512)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1]


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_of_zeros_has_an_empty_range(method):
    assert calibration.ranges({"x": Spread(counts=np.zeros(BINS))}, method)["x"] == (0, 0)


def test_the_split_is_fixed_and_leaves_nothing_out():
    rows = {"x": np.arange(40, dtype=np.float32)[:, None]}
    learned, held = calibration.split(rows)
    assert sorted([*learned["x"][:, 0], *held["x"][:, 0]]) == list(range(40))
    assert held["x"][:, 0].tolist() == list(range(3, 40, 4))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"x": np.zeros((LEAST_ROWS - 1, 3), np.float32)}, f"at least {LEAST_ROWS}"),
        ({"x": np.full((LEAST_ROWS, 3), np.nan, np.float32)}, "NaN"),
        ({"x": np.full((LEAST_ROWS, 3), np.inf, np.float32)}, "infinity"),
        ({"x": np.zeros((LEAST_ROWS, 3))}, "float64"),
        ({"x": np.zeros((LEAST_ROWS, 4), np.float32)}, "shape"),
        ({"y": np.zeros((LEAST_ROWS, 3), np.float32)}, "lacks x"),
    ],
)
def test_unfit_rows_are_refused(rows, words):
    with pytest.raises(InvalidInput, match=words):
        calibration.check_rows(rows, SPECS)


def test_just_enough_rows_are_taken():
    calibration.check_rows({"x": np.zeros((LEAST_ROWS, 3), np.float32)}, SPECS)
