"""Recordings of two channels, drawn from a generator, one sample missing in each."""

from collections.abc import Iterator

import numpy as np

from converters.data.dataset import ROLES, LabelledRecording
from edge_core.features.over_samples import Mean
from edge_core.features.sensors import SensorInput, Window
from edge_core.features.window_definition import WindowDefinition

WINDOWS = WindowDefinition(
    inputs=[
        SensorInput(name="x", unit="g", lsb=2**-10, low=-8.0, high=8.0, null_policy="skip"),
        SensorInput(name="y", unit="g", lsb=2**-10, low=-8.0, high=8.0),
    ],
    window=Window(samples=8, hop=4, max_gap_ms=100, rate_hz=50.0),
    features=[Mean(name="x_mean", input="x", default=0.0), Mean(name="y_mean", input="y")],
)


def recordings() -> Iterator[LabelledRecording]:
    draw = np.random.default_rng(1)
    for place, role in enumerate(ROLES):
        samples = draw.normal(size=(40 + place, 2)).astype(np.float32)
        samples[3, 0] = np.nan
        yield LabelledRecording(
            samples=samples,
            label="still",
            entity=f"subject {place}",
            role=role,
            slices={"side": "left"},
        )
