"""Counts in reference-quantile bins: what a release expects to see, and what a device saw.

The bin edges are fixed when the bundle is built (``reference.bin``), so that windows of any
devices add up exactly, in any order and grouping.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Literal, Self

import msgspec
import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidBundle, InvalidMessage, quoted
from edge_core.stats.projection import Projection, Projector

REFERENCE_VERSION = 2
"""Has the projection of an embedding; a release without one is written as the version before."""
PLAIN_VERSION = 1
MAX_REFERENCE_BYTES = 1024 * 1024
LARGEST_COUNT = 2**40
LARGEST_ROWS = 2**53
"""More than any training counts, and exact as a float."""

LARGEST_EDGE = 2.0**127
"""Leaves room in float32 for the step above the top edge."""

UNUSUAL_SHARE = 0.1 + 0.01
"""Of the reference's rows, at either end; quantile bins are not filled to the row."""

FEW_PARTS = 16
"""So many parts of a batch are gathered input by input; more are joined first."""

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Kind = Literal["input", "feature", "embedding", "score"]
_ORDER: list[Kind] = ["input", "feature", "embedding", "score"]


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
    """All channels of a release: inputs, features, then ``confidence`` and ``predicted``.

    Where the release has an embedding, its projections stand before these two.
    """

    v: int = PLAIN_VERSION
    rows: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_ROWS)]
    channels: Annotated[list[Channel], msgspec.Meta(min_length=2, max_length=2048)]
    projection: Projection | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        if [c.name for c in self.channels[-2:]] != ["confidence", "predicted"]:
            raise ValueError("the last two channels have to be confidence and predicted")
        kinds = [channel.kind for channel in self.channels]
        if kinds.count("score") != 2 or kinds != sorted(kinds, key=_ORDER.index):
            raise ValueError("channels have to come in the order inputs, features, two scores")
        if len({c.name for c in self.channels}) != len(self.channels):
            raise ValueError("two channels have the same name")
        if [c.name for c in self.channels if c.kind == "embedding"] != self.projections:
            raise ValueError("channels of the embedding are not those of its projection")
        if (self.v == REFERENCE_VERSION) != bool(self.projections):
            raise ValueError(f"version {self.v} is not that of its channels")

    @property
    def projections(self) -> list[str]:
        """Names of the embedding's channels; none where the release has no embedding."""
        return [] if isinstance(self.projection, msgspec.UnsetType) else self.projection.names

    @property
    def coordinates(self) -> int:
        """Of the embedding; 0 where the release has none."""
        return 0 if isinstance(self.projection, msgspec.UnsetType) else self.projection.size


class _Versioned(msgspec.Struct):
    v: int


def parse(data: bytes) -> Reference:
    """Parse ``reference.bin``; raise :class:`InvalidBundle` where it is not valid."""
    if len(data) > MAX_REFERENCE_BYTES:
        raise InvalidBundle(f"reference has {len(data)} bytes; the limit is {MAX_REFERENCE_BYTES}")
    try:
        version = msgspec.msgpack.decode(data, type=_Versioned).v
        if not PLAIN_VERSION <= version <= REFERENCE_VERSION:
            raise InvalidBundle(
                f"reference has version {version}; known are {PLAIN_VERSION} and "
                f"{REFERENCE_VERSION}"
            )
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
    embedding: Float32 | None = None,
    projection: Projection | None = None,
) -> Reference:
    """Make the reference of a release from training values, one flat array per channel.

    Edges are quantiles, so that each bin held an equal share; ``predicted`` holds class indices
    and has one bin for each of ``classes``. ``embedding``, float32 [rows, size], comes with the
    directions that it is seen from.
    """
    if (embedding is None) != (projection is None):
        raise ValueError("an embedding needs a projection, and a projection an embedding")
    seen: dict[str, Float32] = {}
    if embedding is not None and projection is not None:
        projected = Projector(projection).project(embedding)
        seen = dict(zip(projection.names, projected.T, strict=True))
    channels = [
        *(_quantile_channel(name, "input", values, bins) for name, values in inputs.items()),
        *(_quantile_channel(name, "feature", values, bins) for name, values in features.items()),
        *(_quantile_channel(name, "embedding", values, bins) for name, values in seen.items()),
        _quantile_channel("confidence", "score", confidence, bins),
        _counted("predicted", "score", np.arange(classes + 1) - 0.5, predicted),
    ]
    return Reference(
        v=PLAIN_VERSION if projection is None else REFERENCE_VERSION,
        rows=len(confidence),
        channels=channels,
        projection=msgspec.UNSET if projection is None else projection,
    )


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


class _Columns:
    """Bin numbers of several channels of which each row has one value."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        bins = [_Bins(channel) for channel in channels]
        widest = max((len(entry.edges) for entry in bins), default=0)
        # Float32 [most edges, 1, channels]; the padding is NaN, which no value reaches.
        self._edges = np.full((widest, 1, len(bins)), np.nan, np.float32)
        for column, entry in enumerate(bins):
            self._edges[: len(entry.edges), 0, column] = entry.edges
        self._nulls = np.array([channel.size - 1 for channel in channels], np.int64)
        self._small = np.uint8 if widest < 256 else np.uint16

    def index(self, values: Float32) -> Int64:
        """Float32 [n, channels] -> int64 [n, channels], as :meth:`_Bins.index`."""
        # One comparison with every edge beats a search per column.
        reached = (values >= self._edges).view(np.uint8)
        index: Int64 = np.add.reduce(reached, axis=0, dtype=self._small).astype(np.int64)
        nulls = np.isnan(values)
        if nulls.any():
            index = np.where(nulls, self._nulls, index)
        return index


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
        self._columns = [_Columns(reference.channels[first:-2]) for first in (0, self.inputs)]

    def slice_of(self, name: str) -> slice:
        """The channel's place in a flat array of counts; ``KeyError`` for an unknown name."""
        return self._slices[name]

    @cached_property
    def _projector(self) -> Projector | None:
        """Only devices need it."""
        found = self.reference.projection
        return None if isinstance(found, msgspec.UnsetType) else Projector(found)

    def computed(self, features: Float32, embedding: Float32 | None) -> Float32:
        """Features and, where the release has an embedding, its projections beside them.

        Args:
            features: float32 [b, f].
            embedding: float32 [b, size]; none where rows have none, which counts as null.

        Returns:
            float32 [b, f + directions].
        """
        if self._projector is None:
            if embedding is not None:
                raise ValueError("an embedding where the reference has none")
            return features
        project, none = self._projector.project, self._projector.none
        seen = none(len(features)) if embedding is None else project(embedding)
        return np.concatenate((features, seen), axis=1)

    def feature_bins(self, computed: Float32) -> Int64:
        """Bin numbers of all of :meth:`computed` at once, float32 [b, c] -> int64 [b, c]."""
        return self._columns[1].index(computed)

    def row_bins(self, inputs: Float32, computed: Float32) -> Int64:
        """The same where a row has one value of each input, too: int64 [b, inputs + c]."""
        return self._columns[0].index(np.concatenate((inputs, computed), axis=1))

    def count_series(self, parts: Sequence[Float32], counts: Int64) -> None:
        """Add every sample of every input, float32 parts [b, samples, inputs], to flat counts.

        Comparing whole series with one edge after the other is far quicker than finding each
        sample's bin.
        """
        if len(parts) > FEW_PARTS:
            parts = [np.concatenate(parts)]
        shape = (sum(map(len, parts)), parts[0].shape[1])
        series, reached = np.empty(shape, np.float32), np.empty(shape, bool)
        for place, bins in enumerate(self.bins[: self.inputs]):
            np.concatenate([part[:, :, place] for part in parts], out=series)
            np.equal(series, series, out=reached)
            at_least = [np.count_nonzero(reached)]
            for edge in bins.edges:
                np.greater_equal(series, edge, out=reached)
                at_least.append(np.count_nonzero(reached))
            start = self.starts[place]
            end = start + len(at_least)
            counts[start:end] -= np.diff(at_least, append=0)
            counts[end] += series.size - at_least[0]

    @cached_property
    def unusual_confidence(self) -> npt.NDArray[np.bool_]:
        """Which of the confidence channel's counts are of unusual rows: bool [counts].

        Those are the bins at either end in which the reference has a tenth of its rows or less,
        the guards beyond them, and nulls.
        """
        counts = np.array(self.reference.channels[-2].counts[:-1], np.float64)
        most = UNUSUAL_SHARE * counts.sum()
        outer = np.minimum(np.cumsum(counts), np.cumsum(counts[::-1])[::-1]) <= most
        # Of a reference without rows nothing is usual or not, but for what has no place in it.
        found = outer & (most > 0)
        found[[0, -1]] = True
        return np.append(found, True)

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

    def update(
        self,
        raw: Float32 | Sequence[Float32],
        features: Float32,
        probabilities: Float32,
        embedding: Float32 | None = None,
    ) -> None:
        """Count one batch of predictions.

        Args:
            raw: float32 [batch, samples, inputs], whole or in parts; every sample is counted.
            features: float32 [batch, features].
            probabilities: float32 [batch, classes].
            embedding: float32 [batch, size]; none where no model answered, or it gives none.
        """
        layout = self.layout
        parts = [raw] if isinstance(raw, np.ndarray) else raw
        found = {(part.shape[-1], features.shape[-1]) for part in parts}
        if found != {(layout.inputs, layout.features)}:
            raise ValueError(
                f"{' or '.join(f'{i} inputs and {f} features' for i, f in sorted(found))} where "
                f"the reference has {layout.inputs} and {layout.features}"
            )
        computed = layout.computed(features, embedding)
        one_each = {part.shape[1] for part in parts} == {1}
        if one_each:
            rows = layout.row_bins(np.concatenate(parts)[:, 0], computed)
        else:
            rows = layout.feature_bins(computed)
            layout.count_series(parts, self.counts)
        places = np.column_stack(
            (
                rows,
                layout.confidence_bins(probabilities.max(axis=1)),
                layout.bins[-1].index(probabilities.argmax(axis=1).astype(np.float32)),
            )
        )
        places += layout.starts[0 if one_each else layout.inputs :]
        self.counts += np.bincount(places.reshape(-1), minlength=layout.total)

    def merge(self, other: Self) -> None:
        """Add the counts of another histogram of the same layout."""
        if other.layout is not self.layout and other.layout.reference != self.layout.reference:
            raise ValueError("histograms of different releases do not add up")
        self.counts += other.counts

    def to_bytes(self) -> bytes:
        """Little-endian int64 counts; a count that does not fit stays at the largest."""
        return pack_counts(self.counts)

    @classmethod
    def from_bytes(cls, layout: Layout, data: bytes) -> Self:
        """Unpack counts; raise :class:`InvalidMessage` where their number does not fit."""
        return cls(layout, unpack_counts(data, layout.total))


def pack_counts(counts: Int64) -> bytes:
    """Int64 [n] -> little-endian bytes, within +-LARGEST_COUNT."""
    return np.clip(counts, -LARGEST_COUNT, LARGEST_COUNT).astype("<i8").tobytes()


def unpack_counts(data: bytes, size: int) -> Int64:
    """Little-endian int64 bytes -> int64 [size]; empty bytes are all zeros."""
    if not data:
        return np.zeros(size, np.int64)
    if len(data) != 8 * size:
        raise InvalidMessage(f"{len(data)} bytes of counts where {8 * size} are expected")
    return np.frombuffer(data, dtype="<i8").astype(np.int64)
