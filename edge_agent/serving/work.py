"""What waits for the inference thread: requests, and the release that has to answer them."""

import time
from collections.abc import Callable

import msgspec
import numpy.typing as npt

from edge_agent.inference.session import Float32
from edge_agent.monitor import Role
from edge_agent.serving.predictions import Prediction
from edge_agent.serving.release import LoadedRelease
from edge_core.errors import InvalidInput, SerinusError
from edge_core.features.windowing import FeatureStream

MAX_STREAMS = 256

Answer = list[Prediction] | SerinusError
Done = Callable[[Answer], None]


class Totals(msgspec.Struct, kw_only=True):
    """What the active release did since it was activated."""

    rows: int = 0
    errors: int = 0
    fallbacks: int = 0


class Active:
    """The release that answers, its role, its totals and its open sensor streams.

    The streams belong to the inference thread.
    """

    def __init__(
        self,
        release: LoadedRelease,
        role: Role,
        slices: dict[str, str],
        before: "Active | None",
    ) -> None:
        self.release = release
        self.role = role
        self.slices = slices
        """The device's slices that the release declares."""
        self.totals = Totals()
        self.streams: dict[str, FeatureStream] = {}
        if before is not None and before.release.ref == release.ref:
            self.totals = before.totals
        if before is not None and before.release.definition == release.definition:
            # The same windows from the same samples: no sample has to be sent again.
            self.streams = before.streams

    def stream(self, name: str) -> FeatureStream:
        """The open stream with this name; raise :class:`InvalidInput` when there are too many."""
        stream = self.streams.get(name)
        if stream is None:
            if len(self.streams) >= MAX_STREAMS:
                raise InvalidInput(f"more than {MAX_STREAMS} sensor streams; reuse their names")
            stream = FeatureStream(self.release.definition, self.release.evaluator)
            self.streams[name] = stream
        return stream


class Job:
    """One admitted request: whole windows, or samples of a stream."""

    __slots__ = ("active", "done", "rows", "samples", "slices", "started", "stream", "times_us")

    def __init__(
        self,
        *,
        active: Active,
        samples: Float32,
        rows: int,
        slices: dict[str, str],
        done: Done,
        stream: str | None = None,
        times_us: npt.ArrayLike = (),
    ) -> None:
        self.active = active
        self.samples = samples
        """float32 [batch, samples, inputs]; for a stream float32 [samples, inputs]."""
        self.rows = rows
        """Windows that it holds; for a stream the most that it can complete."""
        self.slices = slices
        self.done = done
        self.stream = stream
        self.times_us = times_us
        self.started = time.perf_counter()
