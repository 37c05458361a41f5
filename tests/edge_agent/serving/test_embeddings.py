"""The second output is shown to nobody, counted from its directions, and tried beforehand."""

import asyncio
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent.inference.session import Float32
from edge_agent.monitor import Monitor
from edge_agent.serving.engine import Engine
from edge_agent.serving.release import LoadedRelease
from edge_agent.update.self_test import self_test
from edge_core import outputs
from edge_core.bundle import golden as goldens
from edge_core.bundle import manifest as manifests
from edge_core.errors import InvalidBundle, SerinusError
from edge_core.messages import codec, windows
from edge_core.messages.telemetry import PackedWindow, StatsWindow
from edge_core.stats import histogram
from edge_core.stats.histogram import Histogram
from edge_core.stats.projection import Projector, draw
from tests.simulators.failing_session import FailingSession
from tests.simulators.tiny_bundle import DIRECTIONS, TARGET, run, tiny_bundle, tiny_rows

pytestmark = pytest.mark.anyio

COORDINATES = 5


@pytest.fixture
def seen(tmp_path: Path) -> LoadedRelease:
    """A release with an embedding."""
    return LoadedRelease.open(tiny_bundle(tmp_path / "seen", coordinates=COORDINATES), TARGET)


def engine_of(monitor: Monitor, release: LoadedRelease, cache_rows: int = 0) -> Engine:
    options = {"slices": {"side": "left"}, "max_queue_rows": 4096, "now_us": lambda: 5_000_000}
    engine = Engine(monitor, cache_rows=cache_rows, **options)  # type: ignore[arg-type]
    engine.set_active(release, "incumbent", None)
    return engine


async def answered(
    monitor: Monitor, release: LoadedRelease, samples: Float32, **settings: int
) -> StatsWindow:
    """The window of rows that are asked together, and then alone."""
    engine = engine_of(monitor, release, **settings)
    await engine.predict(samples)
    for row in samples:
        await engine.predict(row[None])
    await engine.close()
    (window,) = [window for window in monitor.close(6000) if window.rows]
    return window


def embedding_of(release: LoadedRelease, folder: Path, samples: Float32) -> Float32:
    """What the model file says, without the agent."""
    features = release.evaluator.evaluate(release.evaluator.quantise(samples))
    return run((folder / release.variant.path).read_bytes(), features, "embedding")


async def test_every_row_is_counted_from_the_release_s_directions(
    monitor: Monitor, seen: LoadedRelease, tmp_path: Path
) -> None:
    samples, _ = tiny_rows(40)
    window = await answered(monitor, seen, samples)
    found = np.frombuffer(window.counts, "<i8")
    directions = draw(seen.ref.name, COORDINATES, DIRECTIONS)
    assert seen.reference.projection == directions
    projected = Projector(directions).project(embedding_of(seen, tmp_path / "seen", samples))
    for place, name in enumerate(directions.names):
        counts = found[seen.layout.slice_of(name)]
        edges = np.array(
            next(c for c in seen.reference.channels if c.name == name).edges, np.float32
        )
        inside = np.histogram(projected[:, place], edges)[0]
        assert counts[1:-2].tolist() == (2 * inside).tolist()
        assert (counts.sum(), counts[-1]) == (80, 0)


async def test_the_window_travels_and_comes_back(monitor: Monitor, seen: LoadedRelease) -> None:
    window = await answered(monitor, seen, tiny_rows(10)[0])
    stamped = windows.stamped(monitor.packed(window), "ab12", 3)
    head = windows.head(codec.decode(PackedWindow, codec.encode(stamped)))
    found = windows.unpack(head, seen.window_schema, "d1")
    assert found.counts == window.counts


async def test_scores_are_those_of_a_release_without_one(
    monitor: Monitor, seen: LoadedRelease, release: LoadedRelease
) -> None:
    samples, _ = tiny_rows(20)
    given = []
    for one in (seen, release):
        engine = engine_of(monitor, one)
        given.append([answer.scores for answer in await engine.predict(samples)])
        await engine.close()
    assert given[0] == given[1]


async def test_rows_from_the_cache_are_counted_all_the_same(
    monitor: Monitor, seen: LoadedRelease
) -> None:
    samples, _ = tiny_rows(30)
    plain = await answered(monitor, seen, samples)
    cached = await answered(monitor, seen, samples, cache_rows=100)
    assert (plain.cost.cached, cached.cost.cached) == (0, 30)
    assert cached.counts == plain.counts


async def test_rows_that_the_baseline_answers_have_none(
    monitor: Monitor, seen: LoadedRelease
) -> None:
    seen.session = session = FailingSession(seen.session)
    session.mode = "nan"
    window = await answered(monitor, seen, tiny_rows(4)[0])
    assert window.arm == "fallback"
    found = np.frombuffer(window.counts, "<i8")
    for name in seen.reference.projections:
        counts = found[seen.layout.slice_of(name)]
        assert counts.tolist() == [0] * (len(counts) - 1) + [8]


async def test_an_embedding_that_is_no_number_costs_no_answer(
    monitor: Monitor, seen: LoadedRelease
) -> None:
    class Odd(FailingSession):
        def run(self, features: Float32) -> Float32:
            answers = super().run(features)
            answers[:, -1] = np.nan
            return answers

    seen.session = Odd(seen.session)
    window = await answered(monitor, seen, tiny_rows(4)[0])
    assert (window.arm, window.rows) == ("incumbent", 8)
    name = seen.reference.projections[0]
    assert np.frombuffer(window.counts, "<i8")[seen.layout.slice_of(name)][-1] == 8


async def test_a_shadow_is_counted_by_its_own_embedding(
    monitor: Monitor, release: LoadedRelease, seen: LoadedRelease
) -> None:
    samples, _ = tiny_rows(30)
    engine = engine_of(monitor, release)
    engine.set_shadow(seen)
    await engine.predict(samples)
    shadow = None
    async with asyncio.timeout(10):
        while shadow is None:
            await asyncio.sleep(0.01)
            shadow = next((w for w in monitor.close(6000) if w.arm == "shadow"), None)
    await engine.close()
    features = seen.evaluator.evaluate(seen.evaluator.quantise(samples))
    logits, embedding = seen.answer(samples, features)
    expected = Histogram(seen.layout)
    expected.update(samples, features, outputs.probabilities(logits), embedding)
    assert shadow.counts == expected.to_bytes()


def test_a_release_that_is_not_to_be_opened_opens_without_its_model(tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path, coordinates=COORDINATES)
    assert LoadedRelease.open_without_model(folder, TARGET).reference.coordinates == COORDINATES


def _one_output_less(folder: Path) -> None:
    plain = tiny_bundle(folder.parent / "plain") / "variants" / TARGET / "model.onnx"
    (folder / "variants" / TARGET / "model.onnx").write_bytes(plain.read_bytes())


def _reference_without(folder: Path) -> None:
    plain = tiny_bundle(folder.parent / "plain") / manifests.REFERENCE
    (folder / manifests.REFERENCE).write_bytes(plain.read_bytes())


def _undeclared(folder: Path) -> None:
    plain = tiny_bundle(folder.parent / "plain")
    _reference_without(folder)
    (folder / manifests.MANIFEST).write_bytes((plain / manifests.MANIFEST).read_bytes())


def _other_size(folder: Path) -> None:
    path = folder / manifests.REFERENCE
    reference = histogram.parse(path.read_bytes())
    wider = draw("tiny-motion@1.0.0", COORDINATES + 1, DIRECTIONS)
    path.write_bytes(histogram.serialize(msgspec.structs.replace(reference, projection=wider)))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_one_output_less, r"3 classes and an embedding of 5; model and fallback answer \(1, 3\)"),
        (_reference_without, "an embedding of 5 coordinates, and reference.bin projects 0"),
        (_undeclared, r"declares 3 classes; model and fallback answer \(1, 8\)"),
        (_other_size, "an embedding of 5 coordinates, and reference.bin projects 6"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(
    tmp_path: Path, damage: object, words: str
) -> None:
    folder = tiny_bundle(tmp_path / "seen", coordinates=COORDINATES)
    assert callable(damage)
    damage(folder)
    with pytest.raises(InvalidBundle, match=words):
        LoadedRelease.open(folder, TARGET)


def test_the_self_test_compares_the_embedding_too(tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path, coordinates=COORDINATES)
    self_test(LoadedRelease.open(folder, TARGET))
    path = folder / manifests.GOLDEN
    golden = goldens.unpack(path.read_bytes())
    for moved, words in (
        ({TARGET: golden.embeddings[TARGET] + np.float32(0.5)}, "embeddings of the golden rows"),
        ({TARGET: golden.embeddings[TARGET][:, :3]}, r"an embedding of shape \(12, 5\)"),
        ({}, "no golden embedding"),
    ):
        path.write_bytes(goldens.pack(golden._replace(embeddings=moved)))
        with pytest.raises(SerinusError, match=words):
            self_test(LoadedRelease.open(folder, TARGET))
