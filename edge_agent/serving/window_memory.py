"""Open sensor streams: samples that wait for their window to fill."""

import logging
from collections.abc import Mapping

import numpy as np

from edge_agent.sampling import Sampled, Sampling
from edge_agent.serving.asking import Requests, SensorSamples, WholeWindows, Work
from edge_agent.serving.memory import Rows
from edge_agent.serving.times import ahead_us, refuse_ahead
from edge_core.errors import InvalidInput
from edge_core.features.evaluation import Evaluator
from edge_core.features.incomplete_windows import TolerantEvaluator
from edge_core.features.window_definition import WindowDefinition
from edge_core.features.windowing import FeatureStream

MAX_STREAMS = 256
MAX_STREAM_NAME = 64
CLOCK_SET_US = 1_577_836_800_000_000
"""2020: a clock that stands before it was never set, and judges no sensor's time. What it lets in
begins anew once it is right."""

log = logging.getLogger(__name__)


class WindowMemory:
    """The streams of one definition by name; see :class:`~edge_agent.serving.memory.Memory`.

    Beyond :data:`MAX_STREAMS` the stream that was pushed to least recently is dropped.
    """

    def __init__(
        self, evaluator: Evaluator, *, tolerates: bool = False, whole: bool = False
    ) -> None:
        """Begin without streams.

        Args:
            evaluator: of the definition.
            tolerates: see the protocol.
            whole: whether the model takes raw windows, of which no sample may be missing.
        """
        self.changes = 0
        self.clock_held = 0
        self.tolerates = tolerates
        self.counts = {"samples_ahead": 0, "streams_begun_anew": 0, "streams_dropped": 0}
        self._evaluator = evaluator
        self._tolerant = TolerantEvaluator(evaluator, every=whole)
        # In the order of use, the least recent first.
        self._streams: dict[str, FeatureStream] = {}

    @classmethod
    def restore(
        cls,
        evaluator: Evaluator,
        parts: Mapping[str, bytes],
        *,
        tolerates: bool = False,
        whole: bool = False,
    ) -> "WindowMemory":
        """Go on where :meth:`snapshot` was taken; raise :class:`InvalidInput` for other bytes."""
        memory = cls(evaluator, tolerates=tolerates, whole=whole)
        if len(parts) > MAX_STREAMS or not all(1 <= len(n) <= MAX_STREAM_NAME for n in parts):
            raise InvalidInput("it holds other streams than an agent keeps")
        for name, data in parts.items():
            memory._streams[name] = FeatureStream.restore(
                evaluator.definition, data, memory._reading
            )
        return memory

    @property
    def definition(self) -> WindowDefinition:
        """What windows are cut and computed by."""
        return self._evaluator.definition

    @property
    def now_us(self) -> None:
        """Each stream has a time of its own."""
        return None

    def take(self, work: Work, came_us: int, sampling: Sampling) -> Rows:
        """Windows as they are, or those that a stream's samples complete."""
        match work:
            case WholeWindows(samples):
                return Rows(samples, None, sampled=_sampled(sampling, len(samples)))
            case SensorSamples():
                return self._push(work, came_us, sampling)
            case _:
                raise TypeError(f"{type(work).__name__} is no work on windows")

    def peek(self, work: WholeWindows | Requests, came_us: int) -> Rows:
        """Windows as they are."""
        if not isinstance(work, WholeWindows):
            raise TypeError(f"{type(work).__name__} is no work on windows")
        return Rows(work.samples, None)

    def incomplete(self, rows: Rows) -> Rows:
        """Whole windows, or completed ones, that lack samples which the model needs."""
        quantised = (self._tolerant if self.tolerates else self._evaluator).quantise(rows.raw)
        lacking = self._tolerant.incomplete(quantised)
        if not self.tolerates or not lacking.any():
            raise InvalidInput(
                "samples are missing, and a model of raw windows takes none that are; refuse them "
                "in the feature definition, or use a raw feature with a default"
            )
        features = self._tolerant.evaluate(quantised)
        return rows._replace(features=features, incomplete=lacking, sampled=None)

    def snapshot(self) -> Mapping[str, bytes]:
        """Every open stream."""
        return {name: stream.snapshot() for name, stream in self._streams.items()}

    @property
    def _reading(self) -> Evaluator:
        return self._tolerant if self.tolerates else self._evaluator

    def _push(self, work: SensorSamples, came_us: int, sampling: Sampling) -> Rows:
        name, times_us, samples = work
        if came_us >= CLOCK_SET_US:
            try:
                refuse_ahead("a sample's time", times_us, came_us)
            except InvalidInput:
                self.counts["samples_ahead"] += np.size(times_us)
                raise
        stream = self._stream(name, came_us)
        late = stream.late
        found = stream.push(times_us, samples)
        self._keep(name, stream)  # not before: a refused push leaves nothing
        self.changes += 1
        rows = Rows(
            found.raw,
            found.features,
            (found.first_us, found.last_us),
            _sampled(sampling, len(found.raw)),
            stream.late - late,
        )
        if self.tolerates and len(found.raw):
            lacking = self._tolerant.incomplete(found.quantised)
            if lacking.any():
                return rows._replace(incomplete=lacking, sampled=None)
        return rows

    def _stream(self, name: str, came_us: int) -> FeatureStream:
        """The stream of this name, or a new one where it is far ahead of the clock."""
        stream = self._streams.get(name)
        newest = stream.newest_us if stream is not None and came_us >= CLOCK_SET_US else None
        if newest is not None and ahead_us(newest, came_us):
            # Else a clock that was wrong once would make everything late until it is reached.
            log.warning("stream %s was far ahead of the clock and begins anew", name)
            self.counts["streams_begun_anew"] += 1
            stream = None
        return stream or FeatureStream(self.definition, self._reading)

    def _keep(self, name: str, stream: FeatureStream) -> None:
        """Make a stream the one that was used last; the first one goes where there are too many."""
        self._streams.pop(name, None)
        self._streams[name] = stream
        if len(self._streams) > MAX_STREAMS:
            del self._streams[next(iter(self._streams))]
            self.counts["streams_dropped"] += 1


def _sampled(sampling: Sampling, rows: int) -> Sampled | None:
    row = sampling.pick(rows) if rows else None
    return None if row is None else Sampled(row)
