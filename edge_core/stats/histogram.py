"""Counts in reference-quantile bins: what a release expects to see, and what a device saw.

The bin edges are fixed when the bundle is built (``reference.bin``), so that windows of any
devices add up exactly, in any order and grouping.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

import msgspec
import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidBundle, InvalidMessage, quoted

REFERENCE_VERSION = 1
MAX_REFERENCE_BYTES = 1024 * 1024
LARGEST_COUNT = 2**32 - 1
LARGEST_ROWS = 2**53
"""More than any training counts, and exact as a float."""

LARGEST_EDGE = 2.0**127
"""Leaves room in float32 for the step above the top edge."""

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Kind = Literal["input", "feature", "score"]
_ORDER: list[Kind] = ["input", "feature", "score"]


class Channel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One watched quantity: its bin edges, and how often training saw each bin.

    ``counts`` holds below, bins ..., above, null. Bin i holds edges[i] <= x < edges[i + 1]; the
    last bin also holds its upper edge.
    """

    name: str
    kind: Kind
    edges: Annotated[list[float], msgspec.Meta(min_length=2, max_length=1025)]
    counts: list[Annotated[int, msgspec.Meta(ge=0, le=LARGEST_ROWS)]]

    def __post_init__(self) -> None:
        edges = np.array(self.edges)
        if not (np.abs(edges) <= LARGEST_EDGE).all() or not (np.diff(edges) > 0).all():
            raise ValueError(f"channel {self.name}: edges do not rise within float32")
        if len(self.counts) != self.size:
            raise ValueError(f"channel {self.name}: {len(self.counts)} counts for {self.size}")

    @property
    def size(self) -> int:
        """Number of counts: the bins, two guards and the nulls."""
        return len(self.edges) + 2


class Reference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All channels of a release: inputs, features, then ``confidence`` and ``predicted``."""

    v: int = REFERENCE_VERSION
    rows: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_ROWS)]
    channels: Annotated[list[Channel], msgspec.Meta(min_length=2, max_length=2048)]

    def __post_init__(self) -> None:
        if [c.name for c in self.channels[-2:]] != ["confidence", "predicted"]:
            raise ValueError("the last two channels have to be confidence and predicted")
        kinds = [channel.kind for channel in self.channels]
        if kinds.count("score") != 2 or kinds != sorted(kinds, key=_ORDER.index):
            raise ValueError("channels have to come in the order inputs, features, two scores")
        if len({c.name for c in self.channels}) != len(self.channels):
            raise ValueError("two channels have the same name")


class _Versioned(msgspec.Struct):
    v: int


def parse(data: bytes) -> Reference:
    """Parse ``reference.bin``; raise :class:`InvalidBundle` where it is not valid."""
    if len(data) > MAX_REFERENCE_BYTES:
        raise InvalidBundle(f"reference has {len(data)} bytes; the limit is {MAX_REFERENCE_BYTES}")
    try:
        version = msgspec.msgpack.decode(data, type=_Versioned).v
        if version != REFERENCE_VERSION:
            raise InvalidBundle(f"reference has version {version}; known is {REFERENCE_VERSION}")
        return msgspec.msgpack.decode(data, type=Reference)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidBundle(f"reference is not valid: {quoted(error)}") from error


def serialize(reference: Reference) -> bytes:
    """Msgpack bytes, the same for equal references."""
    return msgspec.msgpack.encode(reference)


def build(
    *,
    inputs: Mapping[str, Float32],
    features: Mapping[str, Float32],
    confidence: Float32,
    predicted: npt.NDArray[np.integer],
    classes: int,
    bins: int = 10,
) -> Reference:
    """Make the reference of a release from training values, one flat array per channel.

    Edges are quantiles, so that each bin held an equal share; ``predicted`` holds class indices
    and has one bin for each of ``classes``.
    """
    channels = [
        *(_quantile_channel(name, "input", values, bins) for name, values in inputs.items()),
        *(_quantile_channel(name, "feature", values, bins) for name, values in features.items()),
        _quantile_channel("confidence", "score", confidence, bins),
        _counted("predicted", "score", np.arange(classes + 1) - 0.5, predicted),
    ]
    return Reference(rows=len(confidence), channels=channels)


def _quantile_channel(name: str, kind: Kind, values: Float32, bins: int) -> Channel:
    there = values[~np.isnan(values)]
    if not len(there):
        there = np.zeros(1, np.float32)
    quantiles = np.quantile(there.astype(np.float64), np.linspace(0, 1, bins + 1))
    edges = np.unique(quantiles.astype(np.float32))
    if len(edges) < 2:
        # A constant channel gets one narrow bin around its value.
        edges = np.array([edges[0], np.nextafter(edges[0], np.float32(np.inf))])
    return _counted(name, kind, edges, values)


def _counted(name: str, kind: Kind, edges: npt.ArrayLike, values: npt.ArrayLike) -> Channel:
    limits = [float(edge) for edge in np.asarray(edges, dtype=np.float32)]
    bare = Channel(name=name, kind=kind, edges=limits, counts=[0] * (len(limits) + 2))
    counts = np.bincount(_Bins(bare).index(np.asarray(values, np.float32)), minlength=bare.size)
    return Channel(name=name, kind=kind, edges=limits, counts=counts.tolist())


class _Bins:
    """Bin numbers of one channel's values."""

    def __init__(self, channel: Channel) -> None:
        edges = np.array(channel.edges, dtype=np.float32)
        # The top edge belongs to the last bin.
        edges[-1] = np.nextafter(edges[-1], np.float32(np.inf))
        self.edges = edges
        self._null = channel.size - 1

    def index(self, values: Float32) -> Int64:
        """Float32 [n] -> int64 [n]: 0 is below, then the bins, above, and null for NaN."""
        index: Int64 = np.searchsorted(self.edges, values, side="right")
        if np.isnan(values).any():
            index = np.where(np.isnan(values), self._null, index)
        return index

    def count(self, values: Float32) -> Int64:
        """How often each number of :meth:`index` comes up among many values, far quicker."""
        nulls = np.count_nonzero(np.isnan(values))
        reached = [np.count_nonzero(values >= edge) for edge in self.edges]
        return np.array([*-np.diff([values.size - nulls, *reached, 0]), nulls])


class Layout:
    """Where each channel's counts lie in one flat array. Immutable; safe to share."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        starts = np.cumsum([0, *(channel.size for channel in reference.channels)])
        self.total = int(starts[-1])
        self.starts = starts[:-1]
        self._slices = {
            channel.name: slice(int(a), int(b))
            for channel, a, b in zip(reference.channels, starts[:-1], starts[1:], strict=True)
        }
        self.bins = [_Bins(channel) for channel in reference.channels]
        self.inputs = sum(channel.kind == "input" for channel in reference.channels)
        self.features = sum(channel.kind == "feature" for channel in reference.channels)
        self._feature_edges = self._padded(self.bins[self.inputs : -2])

    def slice_of(self, name: str) -> slice:
        """The channel's place in a flat array of counts; ``KeyError`` for an unknown name."""
        return self._slices[name]

    def feature_bins(self, features: Float32) -> Int64:
        """Bin numbers of all features at once, float32 [b, f] -> int64 [b, f]."""
        # With few rows, one comparison with every edge beats a search per column.
        index: Int64 = (features >= self._feature_edges[:, None, :]).sum(axis=0)
        if np.isnan(features).any():
            nulls = [channel.size - 1 for channel in self.reference.channels[self.inputs : -2]]
            index = np.where(np.isnan(features), nulls, index)
        return index

    @staticmethod
    def _padded(bins: list["_Bins"]) -> Float32:
        """Edges float32 [most edges, channels]; the padding is NaN, which no value reaches."""
        widest = max((len(entry.edges) for entry in bins), default=0)
        padded = np.full((widest, len(bins)), np.nan, np.float32)
        for column, entry in enumerate(bins):
            padded[: len(entry.edges), column] = entry.edges
        return padded

    @property
    def confidence_size(self) -> int:
        """Number of counts of the confidence channel."""
        return self.reference.channels[-2].size

    def confidence_bins(self, confidence: Float32) -> Int64:
        """Bin numbers of top-1 probabilities, float32 [n] -> int64 [n]."""
        return self.bins[-2].index(confidence)


class Histogram:
    """Counts of all channels of one release: ``update`` with rows, ``merge`` with another."""

    def __init__(self, layout: Layout, counts: Int64 | None = None) -> None:
        self.layout = layout
        self.counts: Int64 = np.zeros(layout.total, np.int64) if counts is None else counts

    def update(self, raw: Float32, features: Float32, probabilities: Float32) -> None:
        """Count one batch of predictions.

        Args:
            raw: float32 [batch, samples, inputs], every sample is counted.
            features: float32 [batch, features].
            probabilities: float32 [batch, classes].
        """
        layout = self.layout
        if (raw.shape[-1], features.shape[-1]) != (layout.inputs, layout.features):
            raise ValueError(
                f"{raw.shape[-1]} inputs and {features.shape[-1]} features where the reference "
                f"has {layout.inputs} and {layout.features}"
            )
        series = np.ascontiguousarray(np.moveaxis(raw, -1, 0))
        inputs = [bins.count(values) for bins, values in zip(layout.bins, series, strict=False)]
        rows = np.column_stack(
            (
                layout.feature_bins(features),
                layout.confidence_bins(probabilities.max(axis=1)),
                layout.bins[-1].index(probabilities.argmax(axis=1).astype(np.float32)),
            )
        )
        places = rows + layout.starts[layout.inputs :]
        self.counts += np.bincount(places.reshape(-1), minlength=layout.total)
        if inputs:
            self.counts[: layout.starts[layout.inputs]] += np.concatenate(inputs)

    def merge(self, other: Self) -> None:
        """Add the counts of another histogram of the same layout."""
        if other.layout is not self.layout and other.layout.reference != self.layout.reference:
            raise ValueError("histograms of different releases do not add up")
        self.counts += other.counts

    def to_bytes(self) -> bytes:
        """Little-endian u32 counts; a count that does not fit stays at the largest."""
        return pack_counts(self.counts)

    @classmethod
    def from_bytes(cls, layout: Layout, data: bytes) -> Self:
        """Unpack counts; raise :class:`InvalidMessage` where their number does not fit."""
        return cls(layout, unpack_counts(data, layout.total))


def pack_counts(counts: Int64) -> bytes:
    """Int64 [n] -> little-endian u32 bytes, saturating."""
    return np.minimum(counts, LARGEST_COUNT).astype("<u4").tobytes()


def unpack_counts(data: bytes, size: int) -> Int64:
    """Little-endian u32 bytes -> int64 [size]; empty bytes are all zeros."""
    if not data:
        return np.zeros(size, np.int64)
    if len(data) != 4 * size:
        raise InvalidMessage(f"{len(data)} bytes of counts where {4 * size} are expected")
    return np.frombuffer(data, dtype="<u4").astype(np.int64)
