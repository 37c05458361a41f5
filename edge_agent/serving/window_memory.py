"""Open sensor streams: samples that wait for their window to fill."""

from collections.abc import Mapping

from edge_agent.sampling import Sampled, Sampling
from edge_agent.serving.asking import Requests, SensorSamples, WholeWindows, Work
from edge_agent.serving.memory import Rows
from edge_core.errors import InvalidInput
from edge_core.features.evaluation import Evaluator
from edge_core.features.window_definition import WindowDefinition
from edge_core.features.windowing import FeatureStream

MAX_STREAMS = 256
MAX_STREAM_NAME = 64


class WindowMemory:
    """The streams of one definition by name; see :class:`~edge_agent.serving.memory.Memory`."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.changes = 0
        self.clock_held = 0
        self._evaluator = evaluator
        self._streams: dict[str, FeatureStream] = {}

    @classmethod
    def restore(cls, evaluator: Evaluator, parts: Mapping[str, bytes]) -> "WindowMemory":
        """Go on where :meth:`snapshot` was taken; raise :class:`InvalidInput` for other bytes."""
        memory = cls(evaluator)
        if len(parts) > MAX_STREAMS or not all(1 <= len(n) <= MAX_STREAM_NAME for n in parts):
            raise InvalidInput("it holds other streams than an agent keeps")
        for name, data in parts.items():
            memory._streams[name] = FeatureStream.restore(evaluator.definition, data, evaluator)
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
            case SensorSamples(name, times_us, samples):
                stream = self._stream(name)
                late = stream.late
                found = stream.push(times_us, samples)
                self._streams[name] = stream  # not before: a refused push leaves nothing
                self.changes += 1
                return Rows(
                    found.raw,
                    found.features,
                    (found.first_us, found.last_us),
                    _sampled(sampling, len(found.raw)),
                    stream.late - late,
                )
            case _:
                raise TypeError(f"{type(work).__name__} is no work on windows")

    def peek(self, work: WholeWindows | Requests, came_us: int) -> Rows:
        """Windows as they are."""
        if not isinstance(work, WholeWindows):
            raise TypeError(f"{type(work).__name__} is no work on windows")
        return Rows(work.samples, None)

    def snapshot(self) -> Mapping[str, bytes]:
        """Every open stream."""
        return {name: stream.snapshot() for name, stream in self._streams.items()}

    def _stream(self, name: str) -> FeatureStream:
        stream = self._streams.get(name)
        if stream is None:
            if len(self._streams) >= MAX_STREAMS:
                raise InvalidInput(f"more than {MAX_STREAMS} sensor streams; reuse their names")
            stream = FeatureStream(self.definition, self._evaluator)
        return stream


def _sampled(sampling: Sampling, rows: int) -> Sampled | None:
    row = sampling.pick(rows) if rows else None
    return None if row is None else Sampled(row)
