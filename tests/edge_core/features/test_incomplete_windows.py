"""Windows that lack samples: whole ones keep their bits, the others say what they know."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_core.errors import InvalidInput
from edge_core.features.evaluation import Evaluator
from edge_core.features.incomplete_windows import TolerantEvaluator
from edge_core.features.over_samples import BandEnergy, Correlation, Mean, Raw, Std
from edge_core.features.sensors import SensorInput, Window
from edge_core.features.window_definition import WindowDefinition
from edge_core.features.windowing import FeatureStream

SAMPLES = 8
DEFINITION = WindowDefinition(
    inputs=[
        SensorInput(name="ax", unit="g", lsb=2**-10, low=-8.0, high=8.0),
        SensorInput(name="ay", unit="g", lsb=2**-10, low=-8.0, high=8.0),
        SensorInput(name="t", unit="K", lsb=0.5, low=0, high=400, null_policy="skip", min_valid=2),
    ],
    window=Window(samples=SAMPLES, hop=4, max_gap_ms=100, rate_hz=50.0),
    features=[
        Mean(name="ax_mean", input="ax"),
        Std(name="ay_std", input="ay"),
        Correlation(name="both", input="ax", other="ay", default=0.5),
        BandEnergy(name="band", input="ax", low_hz=5, high_hz=20),
        Raw(name="ay_raw", input="ay"),
        Mean(name="t_mean", input="t", default=-1),
    ],
)
STRICT = Evaluator(DEFINITION)
TOLERANT = TolerantEvaluator(STRICT)
WINDOWS = arrays.arrays(
    np.float32, (4, SAMPLES, 3), elements=st.floats(-9, 9, width=32, allow_subnormal=False)
)


def rows(seed: int = 0, count: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (count, SAMPLES, 3)).astype(np.float32)


@given(WINDOWS, st.integers(0, 15))
def test_whole_windows_keep_their_bits_whatever_stands_beside_them(
    samples: np.ndarray, broken: int
) -> None:
    expected = STRICT.evaluate(STRICT.quantise(samples))
    lacking = [bool(broken >> row & 1) for row in range(4)]
    samples = samples.copy()
    samples[lacking, 2, 0] = np.nan
    quantised = TOLERANT.quantise(samples)
    assert TOLERANT.incomplete(quantised).tolist() == lacking
    features = TOLERANT.evaluate(quantised)
    whole = [not lacks for lacks in lacking]
    assert features[whole].tobytes() == expected[whole].tobytes()


def test_what_is_left_of_a_channel_gives_its_features() -> None:
    samples = rows(count=1)
    samples[0, 3, 0] = np.nan
    features = dict(zip(DEFINITION.feature_names, computed(samples), strict=True))
    left = np.rint(np.delete(samples[0, :, 0], 3).astype(np.float64) * 1024) / 1024
    assert features["ax_mean"] == np.float32(left.mean())
    assert np.isfinite(list(features.values())).all()


def test_a_channel_without_samples_has_no_features() -> None:
    samples = rows(count=1)
    samples[0, :, 1] = np.nan
    features = dict(zip(DEFINITION.feature_names, computed(samples), strict=True))
    unknown = {name for name, value in features.items() if np.isnan(value)}
    assert unknown == {"ay_std", "both", *(n for n in features if n.startswith("ay_raw"))}


def test_what_the_definition_lets_be_missing_is_as_it_says() -> None:
    samples = rows(count=2)
    samples[:, :, 2] = np.nan
    samples[1, 0, 0] = np.nan
    quantised = TOLERANT.quantise(samples)
    assert TOLERANT.incomplete(quantised).tolist() == [False, True]
    place = DEFINITION.feature_names.index("t_mean")
    assert TOLERANT.evaluate(quantised)[:, place].tolist() == [-1.0, -1.0]


def test_a_model_of_raw_windows_needs_every_sample() -> None:
    samples = rows(count=2)
    samples[1, 0, 2] = np.nan
    every = TolerantEvaluator(STRICT, every=True)
    assert every.incomplete(every.quantise(samples)).tolist() == [False, True]


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_is_not_missing(value: float) -> None:
    samples = rows(count=1)
    samples[0, 0, 0] = value
    with pytest.raises(InvalidInput, match="NaN or infinity in ax"):
        TOLERANT.quantise(samples)


def test_a_window_of_another_shape_is_refused_as_ever() -> None:
    for shape in [(1, 7, 3), (1, 8, 2), (8, 3)]:
        with pytest.raises(InvalidInput, match="windows have shape"):
            TOLERANT.evaluate(np.zeros(shape, np.int32))


def test_a_stream_s_memory_is_the_same_either_way() -> None:
    times, samples = 20_000 * np.arange(1, 6), np.ones((5, 3), np.float32)
    streams = [FeatureStream(DEFINITION, evaluator) for evaluator in (STRICT, TOLERANT)]
    for stream in streams:
        stream.push(times, samples)
    one, other = (stream.snapshot() for stream in streams)
    assert one == other
    samples[2, 0] = np.nan
    stream = FeatureStream(DEFINITION, TOLERANT)
    stream.push(times, samples)
    assert FeatureStream.restore(DEFINITION, stream.snapshot(), TOLERANT).newest_us == 100_000
    with pytest.raises(InvalidInput, match="NaN or infinity in ax"):
        FeatureStream.restore(DEFINITION, stream.snapshot(), STRICT)


def computed(samples: np.ndarray) -> list[float]:
    found: list[float] = TOLERANT.evaluate(TOLERANT.quantise(samples))[0].tolist()
    return found
