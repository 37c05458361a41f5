"""From timestamped samples to windows, whatever the chunks in which they arrive. No clock."""

import itertools
from typing import Any, NamedTuple, Self, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidInput, quoted
from edge_core.features.evaluation import Evaluator, Float32, Int32, Int64
from edge_core.features.window_definition import WindowDefinition

MAX_TIME_US = 2**62
"""Times lie within +-2**62 us (146,000 years), so that the step between two fits int64."""

SNAPSHOT_VERSION = 1

Scalar = TypeVar("Scalar", np.float32, np.int32)


class _Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stream's memory on disk."""

    v: int
    definition: str
    """Sha256 of the feature definition."""
    newest: int | None
    late: int
    gaps: int
    times: bytes
    """int64, little-endian, of the samples that wait for their window to fill."""
    raw: bytes
    """float32, little-endian, row-major."""


class Windows(NamedTuple):
    """Complete windows in order of time."""

    first_us: Int64
    """Time of each window's first sample, int64 [batch]."""
    last_us: Int64
    """Time of each window's last sample, int64 [batch]."""
    raw: Float32
    """Samples as they came, float32 [batch, samples, inputs]."""
    quantised: Int32
    """Samples in multiples of lsb, int32 [batch, samples, inputs]."""
    features: Float32
    """float32 [batch, features]."""


class FeatureStream:
    """Windows of one entity's samples, in the order of event time.

    A sample that is not newer than the newest one seen is dropped and counted in ``late``. A
    gap of more than ``max_gap_ms`` discards what was collected and is counted in ``gaps``.
    Memory is bounded by one window. Training calls :meth:`push` once with everything, devices
    with every chunk; the bytes are the same.
    """

    def __init__(self, definition: WindowDefinition, evaluator: Evaluator | None = None) -> None:
        self._definition = definition
        self._evaluator = evaluator or Evaluator(definition)
        self._window = definition.window
        self._times = np.empty(0, dtype=np.int64)
        self._raw = np.empty((0, len(definition.inputs)), dtype=np.float32)
        self._quantised = np.empty((0, len(definition.inputs)), dtype=np.int32)
        self._newest: int | None = None
        self.late = 0
        self.gaps = 0

    @property
    def newest_us(self) -> int | None:
        """Time of the newest sample seen, microseconds; none before the first."""
        return self._newest

    def push(self, times_us: npt.ArrayLike, samples: npt.ArrayLike) -> Windows:
        """Take samples and return the windows that they complete.

        Args:
            times_us: int64 [n], microseconds of event time.
            samples: float32 [n, inputs].

        Raises:
            InvalidInput: shapes do not fit, a value is not finite or a time is out of range;
                nothing was taken then.
        """
        times, raw, quantised = self._checked(times_us, samples)
        previous, fresh = self._order(times)
        self.late += int(len(times) - fresh.sum())
        times, raw, quantised = times[fresh], raw[fresh], quantised[fresh]
        broken = np.flatnonzero(times - previous[fresh] > self._window.max_gap_ms * 1000)
        self.gaps += len(broken)
        found = []
        for start, stop in itertools.pairwise([0, *broken.tolist(), len(times)]):
            if start in broken:
                self._drop(len(self._times))
            found.append(self._extend(times[start:stop], raw[start:stop], quantised[start:stop]))
        return self._joined(found)

    def snapshot(self) -> bytes:
        """What a stream has to remember, so that :meth:`restore` goes on to the same bits."""
        return msgspec.msgpack.encode(
            _Snapshot(
                v=SNAPSHOT_VERSION,
                definition=self._evaluator.digest,
                newest=self._newest,
                late=self.late,
                gaps=self.gaps,
                times=self._times.astype("<i8").tobytes(),
                raw=self._raw.astype("<f4").tobytes(),
            )
        )

    @classmethod
    def restore(
        cls, definition: WindowDefinition, data: bytes, evaluator: Evaluator | None = None
    ) -> Self:
        """A stream that goes on where :meth:`snapshot` was taken.

        Raises:
            InvalidInput: damaged bytes, or those of another definition.
        """
        stream = cls(definition, evaluator)
        try:
            kept = msgspec.msgpack.decode(data, type=_Snapshot)
            times = np.frombuffer(kept.times, "<i8").astype(np.int64)
            raw = np.frombuffer(kept.raw, "<f4").astype(np.float32)
            raw = raw.reshape(len(times), len(definition.inputs))
        except (msgspec.MsgspecError, ValueError) as error:
            raise InvalidInput(f"a stream's snapshot is damaged: {quoted(error)}") from error
        if (kept.v, kept.definition) != (SNAPSHOT_VERSION, stream._evaluator.digest):
            raise InvalidInput("a stream's snapshot belongs to another feature definition")
        if len(times) >= definition.window.samples or (times[1:] <= times[:-1]).any():
            raise InvalidInput("a stream's snapshot is damaged: it holds no part of a window")
        stream._times, stream._raw = times, raw
        stream._quantised = stream._evaluator.quantise(raw)
        stream._newest, stream.late, stream.gaps = kept.newest, kept.late, kept.gaps
        return stream

    def _checked(
        self, times_us: npt.ArrayLike, samples: npt.ArrayLike
    ) -> tuple[Int64, Float32, Int32]:
        times = _as_microseconds(times_us)
        raw = self._evaluator.checked(samples)
        quantised = self._evaluator.steps(raw)
        if quantised.shape != (len(times), self._raw.shape[1]):
            raise InvalidInput(
                f"samples have shape {list(quantised.shape)} for {len(times)} times; needed is "
                f"[{len(times)}, {self._raw.shape[1]}]"
            )
        return times, raw, quantised

    def _order(self, times: Int64) -> tuple[Int64, npt.NDArray[np.bool_]]:
        """Newest time before each sample, int64 [n], and whether the sample is newer, bool [n]."""
        if not len(times):
            return times, np.empty(0, dtype=np.bool_)
        # The very first sample has no predecessor: it follows itself without a gap.
        before = int(times[0]) - 1 if self._newest is None else self._newest
        newest = np.maximum.accumulate(np.concatenate(([before], times)))
        self._newest = int(newest[-1])
        return newest[:-1], times > newest[:-1]

    def _extend(
        self, times: Int64, raw: Float32, quantised: Int32
    ) -> tuple[Int64, Int64, Float32, Int32]:
        """Append samples without a gap among them; cut off every window that is complete."""
        self._times = np.concatenate((self._times, times))
        self._raw = np.concatenate((self._raw, raw))
        self._quantised = np.concatenate((self._quantised, quantised))
        size, hop = self._window.samples, self._window.hop
        count = max(0, (len(self._times) - size) // hop + 1)
        first = np.arange(count) * hop
        cut = (
            self._times[first],
            self._times[first + (size - 1)],
            _overlapping(self._raw, count, size, hop),
            _overlapping(self._quantised, count, size, hop),
        )
        self._drop(count * hop)
        return cut

    def _drop(self, count: int) -> None:
        self._times = self._times[count:].copy()
        self._raw = self._raw[count:].copy()
        self._quantised = self._quantised[count:].copy()

    def _joined(self, found: list[tuple[Int64, Int64, Float32, Int32]]) -> Windows:
        first, last, raw, quantised = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return Windows(first, last, raw, quantised, self._evaluator.evaluate(quantised))


def _overlapping(samples: npt.NDArray[Scalar], count: int, size: int, hop: int) -> Any:
    """Views of ``count`` windows, [count, size, inputs]; nothing is copied."""
    if not count:
        return np.empty((0, size, samples.shape[1]), samples.dtype)
    if count == 1:
        return samples[None, :size]
    windows = np.lib.stride_tricks.sliding_window_view(samples, size, axis=0)
    return windows[: (count - 1) * hop + 1 : hop].transpose(0, 2, 1)


def _as_microseconds(times_us: npt.ArrayLike) -> Int64:
    try:
        times = np.asarray(times_us)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"times are not a flat list of whole microseconds: {error}") from error
    if times.ndim != 1 or (times.size and times.dtype.kind not in "iu"):
        raise InvalidInput("times have to be a flat list of whole microseconds")
    if times.size and not (times.min() > -MAX_TIME_US and times.max() < MAX_TIME_US):
        raise InvalidInput("a time is beyond 2**62 microseconds; send microseconds since 1970")
    return times.astype(np.int64)
