"""Every operation on samples against exact fractions, with samples missing and without."""

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
from edge_core.features.evaluation import Evaluator
from edge_core.features.over_samples import (
    BandEnergy,
    Correlation,
    Count,
    Energy,
    Max,
    Mean,
    Min,
    QuantileBins,
    Range,
    Raw,
    Std,
    Sum,
    Variance,
    ZeroCrossings,
)
from edge_core.features.reductions import COSINE_BITS, MISSING, cosines
from edge_core.features.sensors import SensorInput, Window
from edge_core.features.window_definition import WindowDefinition

SAMPLES = 16
LSB = 0.25
LEAST = 5
INPUTS = [
    SensorInput(name="x", unit="g", lsb=LSB, low=-8, high=8, null_policy="skip", min_valid=LEAST),
    SensorInput(name="y", unit="g", lsb=LSB, low=-8, high=8, null_policy="skip", min_valid=LEAST),
]
WINDOW = Window(samples=SAMPLES, hop=SAMPLES, max_gap_ms=100, rate_hz=16.0)
FEATURES = [
    Count(name="count", input="x", default=-1),
    Sum(name="sum", input="x", default=-2),
    Mean(name="mean", input="x", default=-3),
    Variance(name="variance", input="x", default=-4),
    Std(name="std", input="x", default=-5),
    Min(name="min", input="x", default=-6),
    Max(name="max", input="x", default=-7),
    Range(name="range", input="x", default=-8),
    Energy(name="energy", input="x", default=-9),
    ZeroCrossings(name="crossings", input="x", default=-10),
    QuantileBins(name="bins", input="x", edges=[-1.1, 0.0, 2.25], default=-11),
    Correlation(name="together", input="x", other="y", default=-12),
    BandEnergy(name="band", input="x", low_hz=0, high_hz=9, default=-13),
    Raw(name="raw", input="x", default=-14),
]
EVALUATOR = Evaluator(WindowDefinition(inputs=INPUTS, window=WINDOW, features=FEATURES))
VALUES = st.one_of(st.integers(-40, 40).map(lambda steps: steps * LSB), st.just(math.nan))
ROWS = arrays.arrays(np.float32, (3, SAMPLES, 2), elements=VALUES)


def clipped(value: float) -> Fraction:
    return Fraction(min(max(value, -8.0), 8.0))


def computed(samples: npt.ArrayLike) -> list[dict[str, float]]:
    rows = EVALUATOR.evaluate(EVALUATOR.quantise(samples))
    return [
        dict(zip(EVALUATOR.definition.feature_names, row.tolist(), strict=True)) for row in rows
    ]


@settings(max_examples=80, deadline=None)
@given(ROWS)
def test_operations_leave_missing_samples_out(samples: npt.NDArray[np.float32]) -> None:
    for row, found in zip(samples.tolist(), computed(samples), strict=True):
        x = [clipped(pair[0]) for pair in row if not math.isnan(pair[0])]
        if len(x) < LEAST:
            assert found["count"] == -1
            assert found["mean"] == -3
            assert [found[f"bins_{place}"] for place in range(4)] == [-11] * 4
            assert found["band"] == -13
            continue
        n, total, squares = len(x), sum(x), sum(value * value for value in x)
        variance = squares / n - (total / n) ** 2
        expected = {
            "count": n,
            "sum": total,
            "mean": total / n,
            "variance": variance,
            "std": math.sqrt(variance),
            "min": min(x),
            "max": max(x),
            "range": max(x) - min(x),
            "energy": squares / n,
            "crossings": sum((a < 0) != (b < 0) for a, b in itertools.pairwise(x)),
            "bins_0": Fraction(sum(v < Fraction(-11, 10) for v in x), n),
            "bins_1": Fraction(sum(Fraction(-11, 10) <= v < 0 for v in x), n),
            "bins_2": Fraction(sum(0 <= v < Fraction(9, 4) for v in x), n),
            "bins_3": Fraction(sum(v >= Fraction(9, 4) for v in x), n),
        }
        assert {name: found[name] for name in expected} == {
            name: np.float32(float(value)) for name, value in expected.items()
        }
        raw = [-14.0 if math.isnan(pair[0]) else float(clipped(pair[0])) for pair in row]
        assert [found[f"raw_{place}"] for place in range(SAMPLES)] == raw


@settings(max_examples=80, deadline=None)
@given(ROWS)
def test_correlation_is_pearsons(samples: npt.NDArray[np.float32]) -> None:
    for row, found in zip(samples.tolist(), computed(samples), strict=True):
        both = [tuple(map(clipped, pair)) for pair in row if not any(map(math.isnan, pair))]
        if len(both) < LEAST:
            if any(math.isnan(value) for pair in row for value in pair):
                assert found["together"] == -12
            continue
        x, y = (np.array(side, dtype=np.float64) for side in zip(*both, strict=True))
        if x.std() == 0 or y.std() == 0:
            assert found["together"] == 0
        else:
            assert found["together"] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(ROWS)
def test_all_bands_together_hold_the_mean_square(samples: npt.NDArray[np.float32]) -> None:
    """Parseval's theorem; a missing sample counts as zero."""
    for row, found in zip(samples.tolist(), computed(samples), strict=True):
        x = [0.0 if math.isnan(pair[0]) else float(clipped(pair[0])) for pair in row]
        if sum(not math.isnan(pair[0]) for pair in row) >= LEAST:
            assert found["band"] == pytest.approx(
                sum(value * value for value in x) / SAMPLES, rel=3e-4, abs=1e-9
            )


@pytest.mark.parametrize(("hertz", "amplitude"), [(0, 2.0), (1, 3.0), (3, 1.5), (8, 2.0)])
def test_a_band_holds_what_swings_in_it(hertz: int, amplitude: float) -> None:
    bands = [
        BandEnergy(name=f"at_{k}", input="x", low_hz=k, high_hz=k + 1, default=0) for k in range(9)
    ]
    inputs = [SensorInput(name="x", unit="g", lsb=2**-12, low=-8, high=8)]
    evaluator = Evaluator(WindowDefinition(inputs=inputs, window=WINDOW, features=bands))
    wave = amplitude * np.cos(2 * np.pi * hertz * np.arange(SAMPLES) / SAMPLES)
    (found,) = evaluator.evaluate(evaluator.quantise(wave.reshape(1, SAMPLES, 1)))

    mean_square = amplitude**2 if hertz in (0, 8) else amplitude**2 / 2
    assert found[hertz] == pytest.approx(mean_square, rel=1e-3)
    assert np.delete(found, hertz).max() < 1e-5


def test_no_cosine_lies_near_the_middle_of_two_multiples() -> None:
    """Else two mathematics libraries could round it to different ones."""
    for samples in range(2, 4097):
        turns = np.arange(samples // 8 + 1) / samples
        for wave in (np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)):
            places = wave * 2**COSINE_BITS
            assert np.abs(places - np.floor(places) - 0.5).min() > 1e-9, samples


def test_cosines_of_a_quarter_turn_are_whole() -> None:
    waves = cosines(8, range(1, 2)) / 2**COSINE_BITS
    assert waves[:, 0].tolist()[::2] == [1, 0, -1, 0]
    assert waves[:, 1].tolist()[::2] == [0, 1, 0, -1]


def test_one_row_alone_has_the_bits_that_it_has_among_others() -> None:
    draw = np.random.default_rng(4)
    samples = draw.normal(0, 4, (64, SAMPLES, 2)).astype(np.float32)
    samples[draw.random(samples.shape) < 0.3] = np.nan
    samples[7] = np.nan_to_num(samples[7])
    quantised = EVALUATOR.quantise(samples)
    together = EVALUATOR.evaluate(quantised)
    alone = np.concatenate([EVALUATOR.evaluate(row[None]) for row in quantised])
    assert alone.tobytes() == together.tobytes()


def test_a_missing_sample_is_marked_and_infinity_is_still_refused() -> None:
    samples = np.zeros((1, SAMPLES, 2), np.float32)
    samples[0, 3, 1] = np.nan
    assert EVALUATOR.quantise(samples)[0, 3, 1] == MISSING
    samples[0, 3, 1] = np.inf
    with pytest.raises(InvalidInput, match="NaN or infinity in y;"):
        EVALUATOR.quantise(samples)


def test_a_model_of_raw_windows_gets_no_missing_sample() -> None:
    samples = np.zeros((1, SAMPLES, 2), np.float32)
    assert EVALUATOR.rounded(samples).tobytes() == samples.tobytes()
    samples[0, 0, 0] = np.nan
    with pytest.raises(InvalidInput, match="samples are missing"):
        EVALUATOR.rounded(samples)
