import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent.inference.buckets import LARGEST, bucket_for
from edge_agent.inference.session import Session, open_session
from edge_core.bundle import folder as folders
from edge_core.errors import InvalidBundle, Unavailable
from tests.simulators.tiny_bundle import BIAS, TARGET, WEIGHTS, one_gemm, tiny_bundle
from tests.simulators.tiny_tflite import tiny_tflite

Opener = Callable[[Path], Session]


def _onnx(folder: Path) -> Session:
    variant = folders.read(tiny_bundle(folder)).variant(TARGET)
    return open_session(folder / variant.path, variant)


def _litert(folder: Path) -> Session:
    variant = folders.read(tiny_bundle(folder)).variant(TARGET)
    path = folder / "model.tflite"
    path.write_bytes(tiny_tflite(WEIGHTS, BIAS))
    return open_session(path, msgspec.structs.replace(variant, runtime="litert"))


def _litert_of_one_row(folder: Path) -> Session:
    variant = folders.read(tiny_bundle(folder)).variant(TARGET)
    path = folder / "model.tflite"
    path.write_bytes(tiny_tflite(WEIGHTS, BIAS, resizable=False))
    return open_session(path, msgspec.structs.replace(variant, runtime="litert"))


@pytest.fixture(
    params=[_onnx, _litert, _litert_of_one_row],
    ids=["onnxruntime", "litert", "litert-of-one-row"],
)
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Session:
    opener: Opener = request.param
    return opener(tmp_path)


SEEN_FROM = np.random.default_rng(8).normal(0, 1, (4, 5)).astype(np.float32)


def _embedding_by(folder: Path, runtime: str, *, resizable: bool = True) -> Session:
    path = folder / "model"
    made = {
        "onnxruntime": one_gemm(WEIGHTS, BIAS, SEEN_FROM),
        "litert": tiny_tflite(WEIGHTS, BIAS, resizable=resizable, seen_from=SEEN_FROM),
    }
    path.write_bytes(made[runtime])
    variant = folders.read(tiny_bundle(folder)).variant(TARGET)
    return open_session(path, msgspec.structs.replace(variant, runtime=runtime))


@pytest.mark.parametrize("rows", [1, 2, 63, 65])
@pytest.mark.parametrize("runtime", ["onnxruntime", "litert", "litert of one row"])
def test_an_embedding_stands_behind_the_logits_wherever_the_file_has_it(
    tmp_path: Path, runtime: str, rows: int
) -> None:
    name, _, of_one_row = runtime.partition(" ")
    session = _embedding_by(tmp_path, name, resizable=not of_one_row)
    features = np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32)
    answers = session.run(features)
    assert (answers.dtype, answers.shape) == (np.float32, (rows, 8))
    np.testing.assert_allclose(answers[:, :3], features @ WEIGHTS + BIAS, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answers[:, 3:], features @ SEEN_FROM, rtol=1e-4, atol=1e-5)
    kept = answers.copy()
    session.run(np.zeros((rows, 4), np.float32))
    np.testing.assert_array_equal(answers, kept)


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 63, 64, 65, 200])
def test_any_number_of_rows_gives_the_model_s_answer(session: Session, rows: int) -> None:
    features = np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32)
    logits = session.run(features)
    assert logits.dtype == np.float32
    # The bundle's weights differ a little from the constants, by its seed.
    np.testing.assert_allclose(logits, features @ WEIGHTS + BIAS, atol=0.5)
    one_by_one = np.concatenate([session.run(row[None]) for row in features])
    np.testing.assert_allclose(logits, one_by_one, rtol=1e-5, atol=1e-5)


def test_an_answer_survives_the_next_run(session: Session) -> None:
    first = session.run(np.ones((2, 4), np.float32))
    kept = first.copy()
    session.run(np.zeros((2, 4), np.float32))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("width", [1, 5])
def test_rows_of_the_wrong_width_are_a_failure_of_these_rows_only(
    session: Session, width: int
) -> None:
    with pytest.raises(Unavailable, match=r"\[4\] is taken"):
        session.run(np.zeros((1, width), np.float32))
    assert session.run(np.zeros((1, 4), np.float32)).shape == (1, 3)


def test_a_session_says_where_it_runs(session: Session) -> None:
    assert "CPU" in session.runtime
    assert sum(session.placement.values()) >= 1


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, runtime: str) -> None:
    variant = folders.read(tiny_bundle(tmp_path)).variant(TARGET)
    path = tmp_path / "model"
    path.write_bytes(b"not a model" * 20)
    with pytest.raises(InvalidBundle, match="does not accept model"):
        open_session(path, msgspec.structs.replace(variant, runtime=runtime))


@pytest.mark.parametrize(("rows", "bucket"), [(1, 1), (2, 2), (3, 4), (33, 64), (64, LARGEST)])
def test_buckets_are_powers_of_two(rows: int, bucket: int) -> None:
    assert bucket_for(rows) == bucket


def test_onnxruntime_is_quiet(tmp_path: Path) -> None:
    path = tiny_bundle(tmp_path) / "variants" / TARGET / "model.onnx"
    code = f"""
from pathlib import Path
import numpy as np
from edge_agent.inference.onnx import open_model
open_model(Path({str(path)!r})).run(np.zeros((3, 4), np.float32))
"""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stderr == ""
