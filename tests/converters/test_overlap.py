"""Windows that training and test share, whole or in part, at any place."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters import gates, overlap, recipe
from converters.data import dataset
from converters.data.dataset import LabelledRecording, Role, Snapshot
from converters.refusal import RefusedByGate
from edge_core.features.definition import of_windows
from edge_core.features.over_samples import Mean
from edge_core.features.sensors import SensorInput, Window
from edge_core.features.window_definition import WindowDefinition

Float32 = npt.NDArray[np.float32]
DEFINITION = WindowDefinition(
    inputs=[SensorInput(name=name, unit="g", lsb=2**-10, low=-8.0, high=8.0) for name in "xyz"],
    window=Window(samples=100, hop=50, max_gap_ms=100, rate_hz=50.0),
    features=[Mean(name="x_mean", input="x")],
)


def drawn(seed: int, length: int = 400) -> Float32:
    return np.random.default_rng(seed).normal(size=(length, 3)).astype(np.float32)


def cut(train: Float32, test: Float32) -> Snapshot:
    def one(role: Role, samples: Float32) -> LabelledRecording:
        return LabelledRecording(samples=samples, label="a", entity=role, role=role, slices={})

    offered = [one("train", train), one("test", test)]
    offered += [one("calibration", drawn(8)), one("golden", drawn(9))]
    made = dataset.cut(of_windows(DEFINITION), ["a", "b"], {}, offered)
    dataset.check_disjoint(made)
    return made


def shared(train: Float32, test: Float32) -> float:
    (sign,) = overlap.signs(cut(train, test))
    assert sign.gate == "row_overlap"
    return sign.value


def test_recordings_that_share_nothing_show_nothing() -> None:
    assert shared(drawn(1), drawn(2)) == 0


@pytest.mark.parametrize(("begin", "windows"), [(320, 2), (273, 3), (211, 4), (37, 7)])
def test_the_end_of_one_that_is_the_beginning_of_the_other_is_found(
    begin: int, windows: int
) -> None:
    """One recording, split with an overlap; the windows lie at other places, so none is equal."""
    whole = drawn(1, 900)
    assert shared(whole[:400], whole[begin : begin + 400]) == windows


def test_a_release_with_shared_windows_is_refused_by_name() -> None:
    chosen = recipe.load(Path("firmware_bundles/watch_activity"), "1.1.0")
    whole = drawn(1, 900)
    (result,) = gates.judge_leakage(chosen, overlap.signs(cut(whole[:400], whole[320:720])))
    with pytest.raises(RefusedByGate, match=r"row_overlap: 2, limit 0 \(test windows with 25 sam"):
        gates.enforce([result])


def test_a_few_samples_prove_nothing() -> None:
    whole = drawn(1, 900)
    assert shared(whole[:400], whole[380:780]) == 0


def test_rest_is_not_taken_for_the_same_recording() -> None:
    still = np.zeros((400, 3), np.float32)
    first, second = drawn(1), drawn(2)
    first[100:200] = still[:100]
    second[40:130] = still[:90]
    assert shared(first, second) == 0


def test_images_are_compared_whole() -> None:
    assert overlap.run_length(8, 8) == 8
    assert overlap.run_length(200, 6) == 50
    assert overlap.run_length(60, 1) == 60


@given(
    known=st.integers(1, 3),
    samples=st.integers(4, 12),
    length=st.integers(2, 4),
    seed=st.integers(0, 99),
)
def test_runs_are_those_that_a_plain_search_finds(
    known: int, samples: int, length: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    seen, others = (
        draw.integers(0, 2, (rows, samples, 1)).astype(np.float32) for rows in (known, 4)
    )

    def runs(window: Float32) -> set[bytes]:
        parts = [window[i : i + length] for i in range(samples - length + 1)]
        return {part.tobytes() for part in parts if (part != part[0]).any()}

    held = set().union(*map(runs, seen))
    expected = [bool(held & runs(window)) for window in others]
    assert overlap.sharing(seen, others, length).tolist() == expected
