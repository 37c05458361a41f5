"""What applications hand in: windows, samples of a sensor, events, requests."""

from typing import NamedTuple, TypeAlias

import numpy.typing as npt

from edge_agent.inference.session import Float32
from edge_agent.serving.explanation import By
from edge_core.features.columns import Given


class WholeWindows(NamedTuple):
    """Windows that the application cut itself."""

    samples: Float32
    """float32 [batch, samples, inputs]."""


class SensorSamples(NamedTuple):
    """The next samples of one sensor."""

    stream: str
    times_us: npt.ArrayLike
    samples: Float32
    """float32 [n, inputs]."""


class NewEvents(NamedTuple):
    """Events of one of the definition's streams."""

    stream: str
    times_us: npt.ArrayLike
    sequence: npt.ArrayLike
    fields: Given
    arrived_us: npt.ArrayLike | None
    """None: just now."""


class Requests(NamedTuple):
    """Requests, a column for each field; without the one of their time they are asked now."""

    fields: Given
    rows: int


class Occlusion(NamedTuple):
    """How an answer is to be explained."""

    by: By | None = None
    """What is occluded; none for inputs of windows, and for features of requests."""
    per_class: bool = False
    """Whether the changes of all classes are wanted, too."""


class Explain(NamedTuple):
    """Say what each input did to the answers to these rows; nothing is remembered or counted."""

    of: WholeWindows | Requests
    how: Occlusion
    rows: int
    """Rows that the model has to answer for it."""


class Remember(NamedTuple):
    """Hand out what the features remember at this point of the queue."""


Work: TypeAlias = WholeWindows | SensorSamples | NewEvents | Requests
