import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from converters import loading
from converters.floating import FloatModel
from converters.loading import load, load_calibration
from converters.quiet import silenced
from edge_core.errors import InvalidConfiguration, InvalidInput
from tests.converters.corpus import CORPUS

FACTORY = "tests.converters.corpus:TwoHeads"
BATCH = torch.export.Dim("batch", min=1, max=65536)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with silenced():
        yield


def _save_pt2(name: str, path: Path, *, dynamic: bool = True) -> None:
    example = CORPUS[name]()
    rows = tuple(torch.from_numpy(a[:3]) for a in example.feeds.values())
    shapes = tuple({0: BATCH} for _ in rows) if dynamic else None
    torch.export.save(torch.export.export(example.model.module, rows, dynamic_shapes=shapes), path)


@pytest.fixture(scope="module")
def pt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "heads.pt2"
    with silenced():
        _save_pt2("two-heads", path)
    return path


@pytest.fixture(scope="module")
def trained() -> FloatModel:
    return CORPUS["two-heads"]().model


@pytest.fixture(scope="module")
def rows() -> dict[str, np.ndarray]:
    return CORPUS["two-heads"]().feeds


def _same(loaded: FloatModel, trained: FloatModel, rows: dict[str, np.ndarray]) -> None:
    ours, theirs = loaded.run(rows), trained.run(rows)
    for left, right in zip(ours.values(), theirs.values(), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["two-heads", "two-inputs", "tokens", "lstm"])
def test_a_pt2_answers_as_the_module_did(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    _save_pt2(name, path)
    model, feeds = CORPUS[name]()
    loaded = load(path, factory=None, example=feeds)
    assert loaded.inputs == model.inputs
    assert [spec.shape for spec in loaded.outputs] == [spec.shape for spec in model.outputs]
    _same(loaded, model, feeds)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_weights_go_into_the_factorys_module(
    suffix: str, tmp_path: Path, trained: FloatModel, rows: dict[str, np.ndarray]
) -> None:
    path = tmp_path / f"weights{suffix}"
    state = trained.module.state_dict()
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"epoch": 3, "state_dict": state} if suffix == ".pth" else state, path)
    loaded = load(path, factory=FACTORY, example=rows)
    assert not loaded.module.training
    assert [spec.name for spec in loaded.outputs] == ["output_0", "output_1"]
    _same(loaded, trained, rows)


def test_a_factory_file_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.one = nn.Linear(2, 3)\n"
        "    def forward(self, left, right):\n"
        "        return {'sum': self.one(left + right), 'rest': left - right}\n"
    )
    (tmp_path / "factory.py").write_text("import neighbour\ndef make(): return neighbour.Net()\n")
    save_file(
        {"one.weight": torch.ones(3, 2), "one.bias": torch.zeros(3)}, tmp_path / "w.safetensors"
    )
    ones = np.ones((4, 2), np.float32)
    loaded = load(
        tmp_path / "w.safetensors",
        factory=f"{tmp_path / 'factory.py'}:make",
        example={"right": ones * 2, "left": ones},
    )
    assert [spec.name for spec in loaded.inputs] == ["left", "right"]
    answered = loaded.run({"right": ones * 2, "left": ones})
    np.testing.assert_array_equal(answered["sum"], np.full((4, 3), 6, np.float32))
    np.testing.assert_array_equal(answered["rest"], -ones)


def test_the_only_input_takes_the_examples_name(pt2: Path, rows: dict[str, np.ndarray]) -> None:
    loaded = load(pt2, factory=None, example={"mine": rows["features"]})
    assert [spec.name for spec in loaded.inputs] == ["mine"]


class Payload:
    """Runs a command when it is unpickled the careless way."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


def _edit(path: Path, made: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """Rewrite a ``.pt2`` entry by entry."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(made, "w") as target:
        for entry in source.infolist():
            target.writestr(entry.filename, change(entry.filename, source.read(entry)))
    return made


def test_code_in_a_pt2_is_not_run(pt2: Path, tmp_path: Path, rows: dict[str, np.ndarray]) -> None:
    trace = tmp_path / "ran"
    pickled = io.BytesIO()
    torch.save(Payload(trace), pickled)

    def sample(name: str, data: bytes) -> bytes:
        return pickled.getvalue() if name.endswith("sample_inputs/model.pt") else data

    def size(name: str, data: bytes) -> bytes:
        text = f"__import__('os').mkdir({str(trace)!r})"
        return _json(name, data, lambda said: _put(said, "expr_str", text))

    def builtin(name: str, data: bytes) -> bytes:
        return _json(name, data, lambda said: _put(said, "expr_str", "eval(1)"))

    def target(name: str, data: bytes) -> bytes:
        return _json(name, data, lambda said: _put(said, "target", "torch.ops.load_library"))

    for change, said in (
        (sample, "needs code"),
        (size, "which is no expression"),
        (builtin, "which is no expression"),
        (target, "which is no operator"),
    ):
        edited = _edit(pt2, tmp_path / f"{change.__name__}.pt2", change)
        with pytest.raises(InvalidInput, match=said):
            load(edited, factory=None, example=rows)
    assert not trace.exists()


def _json(name: str, data: bytes, change: Callable[[Any], None]) -> bytes:
    if not name.endswith("models/model.json"):
        return data
    said = json.loads(data)
    change(said)
    return json.dumps(said).encode()


def _put(said: Any, key: str, value: str) -> None:
    """Set every string under ``key``."""
    for name, inner in list(said.items()) if isinstance(said, dict) else enumerate(said):
        if name == key and isinstance(inner, str):
            said[name] = value
        elif isinstance(inner, dict | list):
            _put(inner, key, value)


def test_pickles_that_need_code_are_refused_with_the_safe_way(
    tmp_path: Path, trained: FloatModel, rows: dict[str, np.ndarray]
) -> None:
    trace = tmp_path / "ran"
    torch.save(trained.module, tmp_path / "whole.pt")
    torch.save({"weights": Payload(trace)}, tmp_path / "payload.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Payload(trace)))
    for name, needed in (("whole", "TwoHeads"), ("payload", "mkdir"), ("plain", "")):
        with pytest.raises(InvalidInput, match=rf"a pickle that needs code.*{needed}") as refused:
            load(tmp_path / f"{name}.pt", factory=FACTORY, example=rows)
        assert "model.state_dict()" in str(refused.value)
        assert "torch.export.save" in str(refused.value)
    assert not trace.exists()


def test_wrong_keys_and_shapes_are_named(
    tmp_path: Path, trained: FloatModel, rows: dict[str, np.ndarray]
) -> None:
    state = dict(trained.module.state_dict())
    del state["kind.weight"]
    state |= {"kind.bias": torch.zeros(7), "odd": torch.zeros(1)}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(InvalidInput) as refused:
        load(tmp_path / "w.safetensors", factory=FACTORY, example=rows)
    for part in ("lacks kind.weight", "odd", "kind.bias: [7], the module's is [4]"):
        assert part in str(refused.value)


def test_weights_that_are_not_finite_are_refused(
    tmp_path: Path, trained: FloatModel, rows: dict[str, np.ndarray]
) -> None:
    state = {name: value.clone() for name, value in trained.module.state_dict().items()}
    state["kind.bias"][1] = float("nan")
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(InvalidInput, match=r"kind\.bias holds NaN"):
        load(tmp_path / "w.safetensors", factory=FACTORY, example=rows)


@pytest.mark.parametrize(
    ("factory", "error", "said"),
    [
        (None, InvalidConfiguration, "holds weights only: name the function"),
        ("nothing", InvalidConfiguration, "write it as file.py:function"),
        ("absent.py:make", InvalidConfiguration, "absent.py is not there"),
        ("tests.converters.corpus:absent", InvalidConfiguration, "no function absent"),
        ("no_such_package:make", InvalidConfiguration, "cannot be imported: ModuleNotFoundError"),
        ("{here}/bad.py:wrong", InvalidConfiguration, "cannot be imported: SyntaxError"),
        ("{here}/good.py:fails", InvalidInput, "failed: ValueError: first second"),
        ("{here}/good.py:leaves", InvalidInput, "failed: SystemExit"),
        ("{here}/good.py:number", InvalidInput, "made int, not a torch.nn.Module"),
    ],
)
def test_factories_that_do_not_work_are_refused(
    factory: str | None,
    error: type[Exception],
    said: str,
    tmp_path: Path,
    rows: dict[str, np.ndarray],
) -> None:
    (tmp_path / "bad.py").write_text("def wrong(:\n")
    (tmp_path / "good.py").write_text(
        "def fails(): raise ValueError('first\\nsecond')\n"
        "def leaves(): raise SystemExit(3)\n"
        "def number(): return 3\n"
    )
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(error, match=said) as refused:
        load(
            tmp_path / "w.safetensors",
            factory=factory.format(here=tmp_path) if factory else None,
            example=rows,
        )
    assert "\n" not in str(refused.value)


def test_a_fixed_batch_and_unfitting_rows_are_refused(
    pt2: Path, tmp_path: Path, rows: dict[str, np.ndarray]
) -> None:
    _save_pt2("two-heads", tmp_path / "fixed.pt2", dynamic=False)
    with pytest.raises(InvalidInput, match=r"fixed shape \[3, 12\]; export it with dynamic_shapes"):
        load(tmp_path / "fixed.pt2", factory=None, example=rows)
    with pytest.raises(InvalidInput, match="fails on the example"):
        load(pt2, factory=None, example={"features": rows["features"][:, :5]})
    with pytest.raises(InvalidInput, match="features is float64; use float32"):
        load(pt2, factory=None, example={"features": rows["features"].astype(np.float64)})
    with pytest.raises(InvalidInput, match=r"the example has a, b; heads\.pt2 takes features"):
        load(pt2, factory=None, example={"a": rows["features"], "b": rows["features"]})
    with pytest.raises(InvalidConfiguration, match="leave the factory out"):
        load(pt2, factory=FACTORY, example=rows)


def test_files_over_the_limit_or_of_unknown_kind_are_refused(
    pt2: Path, tmp_path: Path, rows: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.h5").write_bytes(b"x")
    with pytest.raises(InvalidConfiguration, match=r"unknown kind; known are \.pt2, \.safetensors"):
        load(tmp_path / "model.h5", factory=None, example=rows)
    with pytest.raises(InvalidInput, match="is not there"):
        load(tmp_path / "absent.pt2", factory=None, example=rows)
    # The real limits are 2 GiB: lower ones show the same refusals.
    monkeypatch.setattr(loading, "MAX_MODEL_BYTES", 1000)
    with pytest.raises(InvalidInput, match="the limit is 1000"):
        load(pt2, factory=None, example=rows)
    monkeypatch.setattr(loading, "MAX_CALIBRATION_BYTES", 1000)
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((100, 100), np.float32))
    with pytest.raises(InvalidInput, match="unpacks to 40128 bytes; the limit is 1000"):
        load_calibration(tmp_path / "bomb.npz")


@pytest.mark.parametrize("suffix", [".pt2", ".pt", ".safetensors", ".npz", ".npy"])
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_files_are_refused_in_one_line(
    suffix: str,
    data: st.DataObject,
    tmp_path: Path,
    pt2: Path,
    trained: FloatModel,
    rows: dict[str, np.ndarray],
) -> None:
    path = tmp_path / f"damaged{suffix}"
    state = trained.module.state_dict()
    if suffix == ".pt2":
        path.write_bytes(pt2.read_bytes())
    elif suffix == ".pt":
        torch.save(state, path)
    elif suffix == ".safetensors":
        save_file(state, path)
    elif suffix == ".npz":
        np.savez(path, **rows)
    else:
        np.save(path, rows["features"])
    whole = path.read_bytes()
    # A zip's last bytes count a comment that nobody reads; those are left out.
    cut = data.draw(st.integers(0, len(whole) - 32), label="length")
    path.write_bytes(whole[:cut] + data.draw(st.binary(max_size=8), label="tail"))
    with silenced(), pytest.raises(InvalidInput) as refused:
        _read(path, rows)
    assert "\n" not in str(refused.value)


def _read(path: Path, rows: dict[str, np.ndarray]) -> None:
    if path.suffix.startswith(".np"):
        load_calibration(path)
    else:
        load(path, factory=None if path.suffix == ".pt2" else FACTORY, example=rows)


def test_calibration_rows_come_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", image=np.ones((3, 2), np.float32), word=np.zeros(3, np.int64))
    found = load_calibration(tmp_path / "rows.npz")
    assert {name: (a.shape, a.dtype.name) for name, a in found.items()} == {
        "image": ((3, 2), "float32"),
        "word": ((3,), "int64"),
    }
    np.save(tmp_path / "rows.npy", found["image"])
    assert load_calibration(tmp_path / "rows.npy").keys() == {"input"}


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros((3, 2))}, "x is float64; use float32"),
        ({"x": np.zeros((3, 2), np.float32), "y": np.zeros(4, np.float32)}, "same number"),
        ({"x": np.full((3, 2), np.nan, np.float32)}, "x holds NaN or infinity, first in row 0"),
        ({"x": np.array([{}], dtype=object)}, "holds Python objects"),
        ({"x": np.float32(3)}, "x is one number"),
        ({"x": np.zeros((0, 2), np.float32)}, "has 0 rows"),
        ({}, "holds no array"),
        ({f"x{i}": np.zeros(1, np.float32) for i in range(65)}, "holds 65 arrays, over 64"),
    ],
)
def test_calibration_that_no_model_takes_is_refused(
    arrays: dict[str, np.ndarray], said: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "rows.npz", **arrays)
    with pytest.raises(InvalidInput, match=said):
        load_calibration(tmp_path / "rows.npz")


def test_a_module_in_training_mode_is_refused_later(tmp_path: Path) -> None:
    from converters.export import to_onnx
    from converters.refusal import StageFailed

    module = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
    program = torch.export.export(module, (torch.zeros(3, 4),), dynamic_shapes=({0: BATCH},))
    torch.export.save(program, tmp_path / "m.pt2")
    example = {"x": np.ones((3, 4), np.float32)}
    loaded = load(tmp_path / "m.pt2", factory=None, example=example)
    with pytest.raises(StageFailed, match=r"aten.dropout in module 1 is in training mode"):
        to_onnx(loaded)
