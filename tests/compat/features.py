"""What the samples of feature definitions and streams say."""

import numpy as np

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
from edge_core.features.sensors import SensorInput, Window
from edge_core.features.window_definition import WindowDefinition
from edge_core.features.windowing import FeatureStream

EVERY_OPERATION = WindowDefinition(
    inputs=[
        SensorInput(
            name="x",
            unit="g",
            lsb=2**-10,
            low=-8.0,
            high=8.0,
            null_policy="skip",
            min_valid=5,
        ),
        SensorInput(name="y", unit="g", lsb=2**-10, low=-8.0, high=8.0),
    ],
    window=Window(samples=8, hop=4, max_gap_ms=100, rate_hz=50.0),
    features=[
        Count(name="count", input="x", default=0.0),
        Sum(name="sum", input="y"),
        Mean(name="mean", input="y"),
        Variance(name="variance", input="y"),
        Std(name="std", input="y"),
        Min(name="min", input="y"),
        Max(name="max", input="y"),
        Range(name="range", input="y"),
        Energy(name="energy", input="y"),
        ZeroCrossings(name="crossings", input="y"),
        QuantileBins(name="bins", input="y", edges=[-1.0, 0.5]),
        Correlation(name="together", input="y", other="x", default=0.0),
        BandEnergy(name="band", input="y", low_hz=5.0, high_hz=15.0),
        Raw(name="raw", input="y"),
    ],
)

EARLIER = np.concatenate(
    (np.arange(3) * 20_000, [10_000], 1_000_000 + np.arange(8) * 20_000)
).astype(np.int64)
"""Three samples, a late one, and after a gap eight that make one window."""
EARLIER_SAMPLES = np.stack((np.sin(EARLIER / 1e5), np.cos(EARLIER / 1e5)), axis=1)
LATER = 1_160_000 + np.arange(8) * 20_000
LATER_SAMPLES = np.stack((np.sin(LATER / 1e5), np.cos(LATER / 1e5)), axis=1)


def half_fed(definition: WindowDefinition) -> FeatureStream:
    """A stream of two channels in the middle of a window."""
    stream = FeatureStream(definition)
    stream.push(EARLIER, EARLIER_SAMPLES)
    return stream
