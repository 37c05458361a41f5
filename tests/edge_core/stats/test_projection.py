"""Embeddings seen from a few directions, and counted so."""

import itertools

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from edge_core.errors import InvalidBundle
from edge_core.stats import histogram, projection
from edge_core.stats.histogram import Histogram, Layout, Reference
from edge_core.stats.projection import Projection, Projector

SIZE, DIRECTIONS, CLASSES = 48, 8, 3
DIRECTED = projection.draw("gestures@1.2.3", SIZE, DIRECTIONS)
RNG = np.random.default_rng(3)

Float32 = npt.NDArray[np.float32]


def rows(count: int, seed: int = 0) -> tuple[Float32, Float32, Float32, Float32]:
    """Raw windows, features, probabilities and embeddings."""
    rng = np.random.default_rng(seed)
    shapes = [(count, 4, 2), (count, 3), (count, SIZE)]
    raw, features, embedding = (rng.normal(0, 1, shape).astype(np.float32) for shape in shapes)
    scores = rng.dirichlet(np.ones(CLASSES), count).astype(np.float32)
    return raw, features, scores, embedding


def built(projected: Projection | None = DIRECTED) -> Reference:
    raw, features, scores, embedding = rows(400)
    return histogram.build(
        inputs={"ax": raw[:, :, 0].ravel(), "ay": raw[:, :, 1].ravel()},
        features={f"f{place}": features[:, place] for place in range(3)},
        confidence=scores.max(axis=1),
        predicted=scores.argmax(axis=1),
        classes=CLASSES,
        embedding=None if projected is None else embedding,
        projection=projected,
    )


def test_directions_have_length_1_and_a_release_has_its_own_for_ever() -> None:
    axes = Projector(DIRECTED).project(np.eye(SIZE, dtype=np.float32))
    np.testing.assert_allclose(np.linalg.norm(axes, axis=0), 1, rtol=1e-6)
    assert set(np.sign(axes).ravel()) == {-1.0, 1.0}
    assert np.linalg.matrix_rank(axes) == DIRECTIONS
    assert projection.draw("gestures@1.2.3", SIZE, DIRECTIONS) == DIRECTED
    assert projection.draw("gestures@1.2.4", SIZE, DIRECTIONS) != DIRECTED
    assert DIRECTED.signs[:8].hex() == "04eb1412cd1929c1"


def test_a_projection_is_the_sum_with_its_signs() -> None:
    embedding = rows(20)[3]
    bits = "".join(f"{byte:08b}" for byte in DIRECTED.signs)
    found = Projector(DIRECTED).project(embedding)
    for direction in range(DIRECTIONS):
        own = bits[direction * SIZE : (direction + 1) * SIZE]
        signs = np.array([1.0 if bit == "1" else -1.0 for bit in own])
        expected = (embedding * signs).sum(axis=1, dtype=np.float64) / np.sqrt(SIZE)
        np.testing.assert_allclose(found[:, direction], expected, rtol=1e-5, atol=1e-6)


def test_a_shift_of_any_coordinates_is_seen_from_some_direction() -> None:
    """By half a standard deviation of each coordinate: from the best of 8, by that or more."""
    before = rows(4000)[3]
    projector = Projector(DIRECTED)
    spread = projector.project(before).std(axis=0)
    for seed in range(50):
        signs = np.random.default_rng(seed).choice([-0.5, 0.5], SIZE).astype(np.float32)
        moved = projector.project(before + signs).mean(axis=0) - projector.project(before).mean(0)
        assert np.abs(moved / spread).max() > 0.35


def test_rows_alone_are_projected_as_rows_together() -> None:
    embedding = rows(300)[3] * np.float32(10.0) ** RNG.integers(-3, 3, (300, 1))
    projector = Projector(DIRECTED)
    together = projector.project(embedding.astype(np.float32))
    alone = [projector.project(row[None]) for row in embedding.astype(np.float32)]
    assert np.concatenate(alone).tobytes() == together.tobytes()


def test_many_coordinates_are_projected_in_parts_that_fit_each_other() -> None:
    size, directions = 4096, 32
    assert projection.MOST_PRODUCTS // (size * directions) < 5
    projector = Projector(projection.draw("wide@1.0.0", size, directions))
    embedding = RNG.normal(0, 1, (5, size)).astype(np.float32)
    together = projector.project(embedding)
    alone = [projector.project(row[None]) for row in embedding]
    assert np.concatenate(alone).tobytes() == together.tobytes()
    assert projector.project(embedding[:0]).shape == (0, directions)


def test_no_number_is_null_and_infinity_is_beyond_the_edges() -> None:
    embedding = np.zeros((3, SIZE), np.float32)
    embedding[0, 1], embedding[1, 1] = np.nan, np.inf
    embedding[2, :2] = 3e38
    found = Projector(DIRECTED).project(embedding)
    assert np.isnan(found[0]).all()
    assert np.isinf(found[1]).all()
    assert np.isfinite(found[2]).all()


@pytest.mark.parametrize("shape", [(2, SIZE - 1), (2, SIZE + 1), (SIZE,), (2, SIZE, 1)])
def test_an_embedding_of_another_size_is_a_bug(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="where the release has 48"):
        Projector(DIRECTED).project(np.zeros(shape, np.float32))


def test_signs_that_are_too_many_or_too_few_are_refused() -> None:
    for signs in (DIRECTED.signs[:-1], DIRECTED.signs + b"\0"):
        with pytest.raises(ValueError, match="8 directions of 48 coordinates have 48"):
            Projection(size=SIZE, directions=DIRECTIONS, signs=signs)
    assert len(projection.draw("a@1.0.0", 3, 3).signs) == 2


def test_a_reference_with_an_embedding_survives_its_bytes() -> None:
    reference = built()
    assert reference.v == 2
    assert histogram.parse(histogram.serialize(reference)) == reference
    kinds = [channel.kind for channel in reference.channels]
    assert kinds == ["input"] * 2 + ["feature"] * 3 + ["embedding"] * 8 + ["score"] * 2
    for channel in reference.channels[5:-2]:
        assert channel.counts == [0, *[40] * 10, 0, 0]


def test_a_reference_without_one_is_written_as_ever() -> None:
    data = histogram.serialize(built(None))
    assert data.startswith(b"\x83\xa1v\x01\xa4rows")
    assert b"projection" not in data


def broken(**changes: object) -> bytes:
    fields = {name: getattr(built(), name) for name in Reference.__struct_fields__}
    return msgspec.msgpack.encode(fields | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 1},
        {"projection": projection.draw("a@1.0.0", SIZE, 7)},
        {"channels": built(None).channels},
        {"channels": built().channels[::-1]},
        {"projection": {"size": SIZE, "directions": 8, "signs": b"\0"}},
        {"projection": {"size": 10**9, "directions": 8, "signs": b"\0"}},
        {"projection": {"size": 1, "directions": 10**9, "signs": b"\0"}},
        {"projection": {"size": 1, "directions": 8, "signs": b"\0", "seed": 1}},
    ],
    ids=["version", "fewer", "none", "order", "signs", "large", "many", "unknown"],
)
def test_a_projection_that_does_not_fit_its_channels_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidBundle, match="reference is not valid"):
        histogram.parse(broken(**changes))


def test_a_version_2_without_a_projection_is_refused() -> None:
    fields = {name: getattr(built(None), name) for name in ("rows", "channels")}
    with pytest.raises(InvalidBundle, match="reference is not valid"):
        histogram.parse(msgspec.msgpack.encode(fields | {"v": 2}))


@pytest.mark.parametrize("samples", [4, 1])
def test_projections_are_counted_as_any_value_is(samples: int) -> None:
    reference = built()
    layout, found = Layout(reference), Histogram(Layout(reference))
    raw, features, scores, embedding = rows(60, seed=9)
    embedding[7, 3] = np.nan
    found.update(raw[:, :samples], features, scores, embedding)
    seen = Projector(DIRECTED).project(embedding)
    for place, name in enumerate(DIRECTED.names):
        edges = np.array(reference.channels[5 + place].edges, np.float32)
        there = seen[~np.isnan(seen[:, place]), place]
        counts = found.counts[layout.slice_of(name)]
        assert counts[1:-2].tolist() == np.histogram(there, edges)[0].tolist()
        assert [counts[0], counts[-2]] == [(there < edges[0]).sum(), (there > edges[-1]).sum()]
        assert counts[-1] == 1
    plain = Histogram(Layout(built(None)))
    plain.update(raw[:, :samples], features, scores)
    for channel in plain.layout.reference.channels:
        own = found.counts[layout.slice_of(channel.name)]
        assert own.tolist() == plain.counts[plain.layout.slice_of(channel.name)].tolist()


def test_rows_without_an_embedding_count_as_null() -> None:
    layout = Layout(built())
    found = Histogram(layout)
    found.update(*rows(5)[:3])
    for name in DIRECTED.names:
        counts = found.counts[layout.slice_of(name)]
        assert counts.tolist() == [0] * (len(counts) - 1) + [5]


def test_any_batching_gives_the_same_counts() -> None:
    layout, parts = Layout(built()), rows(40, seed=4)
    whole, cut = Histogram(layout), Histogram(layout)
    whole.update(*parts)
    for start, stop in itertools.pairwise([0, 1, 7, 8, 39, 40]):
        cut.update(*(part[start:stop] for part in parts))
    assert cut.to_bytes() == whole.to_bytes()


def test_an_embedding_that_the_release_has_not_is_a_bug() -> None:
    raw, features, scores, embedding = rows(2)
    with pytest.raises(ValueError, match="where the reference has none"):
        Histogram(Layout(built(None))).update(raw, features, scores, embedding)
    with pytest.raises(ValueError, match="an embedding needs a projection"):
        histogram.build(
            inputs={},
            features={},
            confidence=scores.max(axis=1),
            predicted=scores.argmax(axis=1),
            classes=CLASSES,
            embedding=embedding,
        )
