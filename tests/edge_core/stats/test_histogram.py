"""Counts in reference bins, against counting value by value; and reference files."""

import itertools

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_core.errors import InvalidBundle, InvalidMessage
from edge_core.stats import histogram
from edge_core.stats.histogram import Channel, Histogram, Layout, Reference

Float32 = npt.NDArray[np.float32]

ODD = [float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1.0, 2.0, 0.5]
# Values on, beside and between the edges, and everything that is no number.
VALUES = st.one_of(st.sampled_from(ODD), st.floats(-3, 3, width=32))


def scores(classes: int = 3) -> list[Channel]:
    edges = [index - 0.5 for index in range(classes + 1)]
    return [
        Channel(name="confidence", kind="score", edges=[0.25, 0.5, 1.0], counts=[0] * 5),
        Channel(name="predicted", kind="score", edges=edges, counts=[0] * (classes + 3)),
    ]


def channel(name: str, kind: histogram.Kind, edges: list[float]) -> Channel:
    return Channel(name=name, kind=kind, edges=edges, counts=[0] * (len(edges) + 2))


REFERENCE = Reference(
    rows=0,
    channels=[
        channel("ax", "input", [-1.0, 0.0, 1.0, 2.0]),
        channel("ay", "input", [0.0, 0.5]),
        channel("ax_mean", "feature", [-2.0, 1.0]),
        channel("ax_std", "feature", [0.0, 0.5, 1.0, 1.5, 2.0]),
        channel("ay_max", "feature", [1.0, 2.0]),
        *scores(),
    ],
)
LAYOUT = Layout(REFERENCE)


def slowly(edges: list[float], values: list[float]) -> list[int]:
    """Below, bins, above and nulls of one channel, one value after the other."""
    counts = [0] * (len(edges) + 2)
    for value in values:
        if value != value:
            counts[-1] += 1
        elif value < edges[0]:
            counts[0] += 1
        elif value > edges[-1]:
            counts[-2] += 1
        else:
            inside = [place for place, edge in enumerate(edges[:-1]) if value >= edge]
            counts[1 + inside[-1]] += 1
    return counts


@settings(max_examples=120, deadline=None)
@given(
    arrays.arrays(np.float32, (3, 4, 2), elements=VALUES),
    arrays.arrays(np.float32, (3, 3), elements=VALUES),
    arrays.arrays(np.float32, (3, 3), elements=st.floats(0, 1, width=32)),
)
def test_counts_are_those_of_counting_value_by_value(
    raw: Float32, features: Float32, probabilities: Float32
) -> None:
    found = Histogram(LAYOUT)
    found.update(raw, features, probabilities)
    columns = [
        *raw.reshape(-1, 2).T.tolist(),
        *features.T.tolist(),
        [max(row) for row in probabilities.tolist()],
        [row.index(max(row)) for row in probabilities.tolist()],
    ]
    for entry, values in zip(REFERENCE.channels, columns, strict=True):
        assert found.counts[LAYOUT.slice_of(entry.name)].tolist() == slowly(entry.edges, values)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=5))
def test_any_batching_gives_the_same_counts(cuts: list[int]) -> None:
    rng = np.random.default_rng(3)
    rows = [rng.normal(0, 1, shape).astype(np.float32) for shape in [(6, 4, 2), (6, 3), (6, 3)]]
    whole, parts = Histogram(LAYOUT), Histogram(LAYOUT)
    whole.update(*rows)
    edges = [0, *sorted(cuts), 6]
    for start, stop in itertools.pairwise(edges):
        parts.update(*(part[start:stop] for part in rows))
    assert parts.to_bytes() == whole.to_bytes()


@pytest.mark.parametrize("shapes", [[(1, 4, 3), (1, 3)], [(1, 4, 2), (1, 2)], [(1, 4, 2), (1, 4)]])
def test_rows_of_another_release_are_a_bug(shapes: list[tuple[int, ...]]) -> None:
    raw, features = (np.zeros(shape, np.float32) for shape in shapes)
    with pytest.raises(ValueError, match="where the reference has 2 and 3"):
        Histogram(LAYOUT).update(raw, features, np.zeros((1, 3), np.float32))


def test_histograms_of_other_edges_do_not_merge_even_at_the_same_size() -> None:
    moved = msgspec.structs.replace(
        REFERENCE, channels=[channel("ax", "input", [-1, 0, 1, 3.0]), *REFERENCE.channels[1:]]
    )
    with pytest.raises(ValueError, match="do not add up"):
        Histogram(LAYOUT).merge(Histogram(Layout(moved)))
    Histogram(LAYOUT).merge(Histogram(Layout(histogram.parse(histogram.serialize(REFERENCE)))))


def test_a_release_without_inputs_or_features_still_counts_its_scores() -> None:
    found = Histogram(Layout(Reference(rows=0, channels=scores())))
    found.update(np.zeros((2, 4, 0)), np.zeros((2, 0)), np.array([[0.1, 0.9, 0], [0.2, 0.1, 0.1]]))
    assert found.counts.tolist() == [1, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0]


def test_bytes_are_little_endian_and_saturate() -> None:
    found = Histogram(LAYOUT)
    found.counts[:3] = [1, histogram.LARGEST_COUNT, histogram.LARGEST_COUNT + 1]
    data = found.to_bytes()
    assert data[:16] == b"\x01" + bytes(12) + b"\x01\0\0"
    again = Histogram.from_bytes(LAYOUT, data)
    assert again.counts[:3].tolist() == [1, histogram.LARGEST_COUNT, histogram.LARGEST_COUNT]
    assert again.to_bytes() == data
    again.counts += 1


def test_no_bytes_are_no_counts_and_any_other_number_is_refused() -> None:
    assert not Histogram.from_bytes(LAYOUT, b"").counts.any()
    for size in (1, 8 * LAYOUT.total - 1, 8 * LAYOUT.total + 8):
        with pytest.raises(InvalidMessage, match=f"{8 * LAYOUT.total} are expected"):
            Histogram.from_bytes(LAYOUT, b"\0" * size)


def built(values: Float32, bins: int = 10) -> Reference:
    return histogram.build(
        inputs={"ax": values},
        features={"f": values},
        confidence=np.linspace(0.3, 1, 9, dtype=np.float32),
        predicted=np.arange(9) % 4,
        classes=4,
        bins=bins,
    )


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(-5, 5, width=32)))
def test_a_reference_holds_every_training_value_between_its_edges(values: Float32) -> None:
    reference = built(values)
    assert reference == histogram.parse(histogram.serialize(reference))
    for entry, count in zip(reference.channels, (len(values), len(values), 9, 9), strict=True):
        assert sum(entry.counts[1:-2]) == count
        assert [entry.counts[0], *entry.counts[-2:]] == [0, 0, 0]
        assert 2 <= len(entry.edges) <= 11
    for entry in reference.channels[:2]:
        assert entry.counts == slowly(entry.edges, values.tolist())


def test_quantile_bins_hold_equal_shares() -> None:
    values = np.random.default_rng(5).permutation(1000).astype(np.float32)
    assert built(values).channels[0].counts == [0, *[100] * 10, 0, 0]


def test_a_class_never_predicted_keeps_its_bin() -> None:
    reference = histogram.build(
        inputs={},
        features={},
        confidence=np.ones(2, np.float32),
        predicted=np.array([0, 2]),
        classes=4,
    )
    assert reference.channels[-1].edges == [-0.5, 0.5, 1.5, 2.5, 3.5]
    assert reference.channels[-1].counts == [0, 1, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("value", [0.0, -0.0, 1.5, -(2.0**120)])
def test_a_constant_channel_gets_a_bin_around_its_value(value: float) -> None:
    reference = built(np.full(7, value, np.float32))
    entry = reference.channels[0]
    assert entry.counts == [0, 7, 0, 0]
    assert histogram.parse(histogram.serialize(reference)) == reference


def test_the_layout_lies_end_to_end_in_order() -> None:
    stop = 0
    for entry in REFERENCE.channels:
        place = LAYOUT.slice_of(entry.name)
        assert (place.start, place.stop) == (stop, stop + entry.size)
        stop = place.stop
    assert LAYOUT.total == stop
    assert (LAYOUT.inputs, LAYOUT.features) == (2, 3)
    with pytest.raises(KeyError):
        LAYOUT.slice_of("gone")


@pytest.mark.parametrize(
    ("edges", "size"),
    [
        ([0.0, 0.0], 4),
        ([1.0, 0.0], 4),
        ([0.0, float("nan")], 4),
        ([0.0, float("inf")], 4),
        ([0.0, 1e300], 4),
        ([0.0, 1.0], 3),
    ],
)
def test_a_channel_that_cannot_count_names_itself(edges: list[float], size: int) -> None:
    with pytest.raises(ValueError, match="channel ax: "):
        Channel(name="ax", kind="input", edges=edges, counts=[0] * size)


@pytest.mark.parametrize(
    "channels",
    [
        [],
        scores()[:1],
        scores()[::-1],
        [channel("a", "feature", [0, 1]), channel("b", "input", [0, 1]), *scores()],
        [channel("a", "score", [0, 1]), *scores()],
        [channel("a", "input", [0, 1]), channel("a", "feature", [0, 1]), *scores()],
        [*scores()[:1], msgspec.structs.replace(scores()[1], kind="input")],
    ],
    ids=["none", "one", "reversed", "mixed", "score", "twice", "kind"],
)
def test_channels_out_of_order_are_an_invalid_bundle(channels: list[Channel]) -> None:
    data = msgspec.msgpack.encode({"v": 1, "rows": 0, "channels": channels})
    with pytest.raises(InvalidBundle, match="reference is not valid"):
        histogram.parse(data)


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[]", b"\x91" * 4000, histogram.serialize(REFERENCE)[:-1]]
)
def test_damaged_bytes_are_an_invalid_bundle(data: bytes) -> None:
    with pytest.raises(InvalidBundle, match="reference is not valid"):
        histogram.parse(data)


def test_an_unknown_version_and_too_many_bytes_are_refused_by_name() -> None:
    with pytest.raises(InvalidBundle, match="version 3; known are 1 and 2"):
        histogram.parse(histogram.serialize(msgspec.structs.replace(REFERENCE, v=3)))
    with pytest.raises(InvalidBundle, match="the limit is"):
        histogram.parse(b"\0" * (histogram.MAX_REFERENCE_BYTES + 1))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_refused_cleanly(data: bytes) -> None:
    with pytest.raises(InvalidBundle):
        histogram.parse(data)


def confidence(edges: list[float], counts: list[int]) -> Layout:
    found = Channel(name="confidence", kind="score", edges=edges, counts=counts)
    return Layout(msgspec.structs.replace(REFERENCE, channels=[found, scores()[1]]))


def test_unusual_confidences_lie_in_the_outer_tenths_of_the_reference() -> None:
    tenths = confidence([0.1 * place for place in range(11)], [0, *[100] * 10, 0, 0])
    unusual = [True, True, *[False] * 8, True, True, True]
    assert tenths.unusual_confidence.tolist() == unusual


def test_a_confidence_that_most_rows_have_is_usual_even_if_none_is_higher() -> None:
    sure = confidence([0.3, 0.6, 0.99, 1.0], [0, 80, 120, 800, 0, 0])
    assert sure.unusual_confidence.tolist() == [True, True, False, False, True, True]


def test_without_rows_in_the_reference_only_what_it_has_no_place_for_is_unusual() -> None:
    empty = confidence([0.25, 0.5, 1.0], [0] * 5)
    assert empty.unusual_confidence.tolist() == [True, False, False, True, True]
