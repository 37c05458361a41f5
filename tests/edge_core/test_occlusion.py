from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edge_core import occlusion
from edge_core.bundle.manifest import REFERENCE
from edge_core.stats import histogram
from edge_core.stats.histogram import Channel, Float32
from tests.simulators.tiny_bundle import DEFINITION, tiny_bundle, tiny_rows


def channel(edges: Sequence[float], counts: Sequence[int]) -> Channel:
    return Channel(name="x", kind="input", edges=list(edges), counts=list(counts))


@pytest.mark.parametrize(
    ("edges", "counts", "expected"),
    [
        ([0, 1, 2], [0, 5, 5, 0, 0], 1.0),
        ([0, 1, 2], [0, 2, 6, 0, 0], 1 + 1 / 3),
        ([0, 1, 2], [0, 8, 0, 0, 0], 0.5),
        ([0, 1, 2], [9, 1, 1, 0, 0], 0.0),
        ([0, 1, 2], [0, 1, 1, 9, 0], 2.0),
        ([3, 4], [0, 0, 0, 7], 3.0),
        ([0, 1, 2], [0, 2, 2, 0, 50], 1.0),
    ],
)
def test_the_median_is_that_of_the_reference(
    edges: Sequence[float], counts: Sequence[int], expected: float
) -> None:
    assert occlusion.median(channel(edges, counts)) == pytest.approx(expected)


def test_the_median_of_many_values_is_close_to_the_true_one(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    reference = histogram.parse((bundle / REFERENCE).read_bytes())
    samples, _ = tiny_rows(120)
    names = DEFINITION.input_names
    medians = occlusion.medians(reference.channels, names)
    assert medians == pytest.approx(np.median(samples, axis=(0, 1)), abs=0.02)


def test_effects_of_a_linear_model_are_known() -> None:
    weights = np.array([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]], np.float32)
    rows = np.array([[1, 0, 5], [0, 3, -5]], np.float32)
    medians = np.array([0, 1, 2], np.float32)
    calls = []

    def scored(asked: Float32) -> Float32:
        calls.append(len(asked))
        return asked @ weights

    found = occlusion.effects(scored, rows, medians)
    assert calls == [2 * 4]
    assert found.probabilities.tolist() == [[2, 0], [0, 3]]
    # Without an input, a class loses the input's weight times its distance from the median.
    assert found.changes.tolist() == [[[2, 0], [0, -1], [0, 0]], [[0, 0], [0, 2], [0, 0]]]


def test_rows_are_left_as_they_were() -> None:
    rows, _ = tiny_rows(3)
    before = rows.copy()
    occlusion.effects(lambda asked: asked.sum(axis=(1, 2))[:, None], rows, np.ones(2, np.float32))
    assert (rows == before).all()
