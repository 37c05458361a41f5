import copy
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from converters.agreement import check_same
from converters.export import to_onnx, to_tflite
from converters.floating import FloatModel
from converters.model_file import ModelFile
from converters.quiet import silenced
from converters.refusal import StageFailed
from converters.tensors import TensorSpec
from converters.tflite_batch import takes_batches
from edge_core.errors import InvalidInput
from tests.converters.corpus import CORPUS, REFUSED, Example

ONE_ROW_ONLY = {"gru", "lstm", "transformer", "torch-transformer"}
"""Models whose TFLite file cannot be resized: with one row, turns of batch and time are nothing."""
EXPORTS = {"onnx": to_onnx, "tflite": to_tflite}
Export = Callable[[FloatModel], ModelFile]


class Made(NamedTuple):
    example: Example
    onnx: ModelFile
    tflite: ModelFile


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with silenced():
        yield


@pytest.fixture(scope="module", params=CORPUS)
def made(request: pytest.FixtureRequest) -> Made:
    example = CORPUS[request.param]()
    with silenced():
        return Made(example, to_onnx(example.model), to_tflite(example.model))


def _one(
    module: nn.Module, *shape: int, out: tuple[int, ...], dtype: str = "float32"
) -> FloatModel:
    return FloatModel(
        module=module.eval(),
        inputs=(TensorSpec(name="x", shape=shape, dtype=dtype),),  # type: ignore[arg-type]
        outputs=(TensorSpec(name="y", shape=out),),
    )


class Calls(nn.Module):
    """A function inside of a module named ``part``."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()

        class Part(nn.Module):
            def forward(self, rows: torch.Tensor) -> torch.Tensor:
                return function(rows)

        self.part = Part()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.part(rows)


def test_both_files_answer_as_torch_does(made: Made) -> None:
    for file in (made.onnx, made.tflite):
        differences = check_same(made.example.model, file, made.example.feeds)
        assert differences.keys() == {spec.name for spec in made.example.model.outputs}
        assert max(differences.values()) < 1e-5


def test_names_and_batch_are_those_of_the_specs(made: Made) -> None:
    graph = onnx.load_model_from_string(made.onnx.data).graph
    for entries, specs in ((graph.input, made.onnx.inputs), (graph.output, made.onnx.outputs)):
        assert [entry.name for entry in entries] == [spec.name for spec in specs]
        for entry, spec in zip(entries, specs, strict=True):
            dims = entry.type.tensor_type.shape.dim
            assert [d.dim_param or d.dim_value for d in dims] == ["batch", *spec.shape]


def test_origins_name_modules_for_every_node(made: Made) -> None:
    paths = {path for path, _ in made.example.model.module.named_modules()} | {"(root)"}
    graph = onnx.load_model_from_string(made.onnx.data).graph
    assert made.onnx.origins.keys() == {node.name for node in graph.node}
    for file in (made.onnx, made.tflite):
        assert set(file.origins.values()) <= paths
        # The last layer's tensor is an output, which litert-torch gives no origin.
        assert set(file.origins.values()) & {"head", "effort.1"}


def test_batch_norms_are_gone(made: Made) -> None:
    graph = onnx.load_model_from_string(made.onnx.data).graph
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    assert not any("/MUL" in name for name in made.tflite.origins if "stem" in name)


def test_nothing_in_the_files_tells_of_this_machine(made: Made) -> None:
    for file in (made.onnx, made.tflite):
        for leak in (str(Path(__file__).parents[2]), torch.__path__[0], "corpus", "site-packages"):
            assert leak.encode() not in file.data


def test_tflite_takes_batches_where_that_is_right(
    made: Made, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.params["made"]
    assert takes_batches(made.tflite.data, made.example.model) is (name not in ONE_ROW_ONLY)


@pytest.mark.parametrize("name", ["windows", "two-heads"])
@pytest.mark.parametrize("export", EXPORTS.values(), ids=EXPORTS)
def test_bytes_are_deterministic_and_the_module_is_untouched(name: str, export: Export) -> None:
    model = CORPUS[name]().model
    model.module.train()
    before, mode = model.digest(), model.module.training
    first, second = export(model), export(CORPUS[name]().model)
    assert hashlib.sha256(first.data).digest() == hashlib.sha256(second.data).digest()
    assert first.origins == second.origins
    assert (model.digest(), model.module.training) == (before, mode)
    assert not any(part._forward_hooks for part in model.module.modules())


def test_another_process_elsewhere_makes_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import hashlib\n"
        "from converters.export import to_onnx, to_tflite\n"
        "from tests.converters.corpus import CORPUS\n"
        "model = CORPUS['windows']().model\n"
        "made = [to_tflite(model).data, to_onnx(model).data]\n"
        "print('made', *(hashlib.sha256(data).hexdigest() for data in made))\n"
    )
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root, "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    model = CORPUS["windows"]().model
    ours = [hashlib.sha256(file.data).hexdigest() for file in (to_tflite(model), to_onnx(model))]
    assert f"made {ours[0]} {ours[1]}" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("name", "operator", "module"),
    [
        ("data-dependent", "aten.index.Tensor", "chooser"),
        ("data-branch", "rows * 2 if rows.sum() > 0", "gate"),
        ("svd", "aten._linalg_svd", "spectrum"),
        ("complex-fft", "aten.", "mixer"),
        ("custom-operator", "serinus_corpus.strange", "odd"),
    ],
)
@pytest.mark.parametrize("export", EXPORTS.values(), ids=EXPORTS)
def test_refusals_name_operator_and_module(
    name: str, operator: str, module: str, export: Export
) -> None:
    with pytest.raises(StageFailed) as refused:
        export(REFUSED[name]().model)
    text = str(refused.value)
    assert operator in text
    assert f"module {module}" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("function", "operator"),
    [
        (lambda rows: rows.gather(1, rows.argsort(1)), "aten.argsort"),  # named by trying alone
        (lambda rows: rows.sort().values, "STABLEHLO_SORT"),  # exported, but without a kernel
        (torch.lgamma, "aten.lgamma"),
    ],
)
def test_tflite_names_what_only_it_lacks(
    function: Callable[[torch.Tensor], torch.Tensor], operator: str
) -> None:
    with pytest.raises(StageFailed, match=f"operator {operator} in module part "):
        to_tflite(_one(Calls(function), 8, out=(8,)))


@pytest.mark.parametrize(
    ("function", "out", "said"),
    [
        (lambda rows: rows.reshape(3, 8), (8,), "some batch sizes only"),
        (lambda rows: rows.t(), (8,), "no row for each row"),
        (lambda rows: rows[:, :5], (8,), r"shape \[batch, 5\]; declared is \[batch, 8\]"),
        (lambda rows: rows.argmax(1, keepdim=True), (1,), "output y is int64; declared is float32"),
        (lambda rows: (rows, rows), (8,), "answers 2 outputs, not 1"),
        (lambda rows: rows + torch.rand_like(rows), (8,), "aten.rand_like in module part draws"),
    ],
)
def test_what_is_not_declared_is_refused(
    function: Callable[[torch.Tensor], torch.Tensor], out: tuple[int, ...], said: str
) -> None:
    with pytest.raises(StageFailed, match=said):
        to_onnx(_one(Calls(function), 8, out=out))


@pytest.mark.parametrize("kind", [torch.float16, torch.float64, torch.bfloat16, torch.complex64])
def test_parameters_of_other_types_are_refused(kind: torch.dtype) -> None:
    model = _one(nn.Sequential(nn.Linear(2, 2, dtype=kind)), 2, out=(2,))
    with pytest.raises(InvalidInput, match=r"parameter 0\.weight is .*hand over a float32 model"):
        to_onnx(model)


def test_whole_number_parameters_and_odd_inputs_are_refused() -> None:
    module = nn.Linear(2, 2)
    module.weight = nn.Parameter(torch.ones((2, 2), dtype=torch.int8), requires_grad=False)
    with pytest.raises(InvalidInput, match="parameter weight is int8"):
        to_tflite(_one(module, 2, out=(2,)))
    with pytest.raises(InvalidInput, match="x is float64; use float32"):
        to_tflite(_one(nn.Linear(2, 2), 2, out=(2,), dtype="float64"))


def test_an_answer_that_differs_from_torch_is_refused() -> None:
    example = CORPUS["two-heads"]()
    file = to_onnx(example.model)
    other = copy.deepcopy(example.model.module)
    with torch.no_grad():
        other.kind.bias += 0.01
    changed = FloatModel(module=other, inputs=file.inputs, outputs=file.outputs)
    with pytest.raises(StageFailed, match="onnxruntime answers kind differently from torch"):
        check_same(changed, file, example.feeds)
    broken = msgspec.structs.replace(file, data=file.data[:-200])
    with pytest.raises(StageFailed, match="onnxruntime cannot run the exported model"):
        check_same(example.model, broken, example.feeds)


def test_rows_that_mix_are_refused() -> None:
    model = _one(Calls(lambda rows: rows - rows.mean(0)), 8, out=(8,))
    feeds = {"x": np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)}
    with pytest.raises(StageFailed, match="differently beside other rows than alone"):
        check_same(model, to_onnx(model), feeds)


def test_whole_numbers_of_64_bits_go_in_as_such() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(9, 4)

        def forward(self, words: torch.Tensor) -> torch.Tensor:
            return self.embed(words).sum(1)

    model = _one(Words(), 5, out=(4,), dtype="int64")
    feeds = {"x": np.random.default_rng(0).integers(0, 9, (6, 5))}
    for export in EXPORTS.values():
        check_same(model, export(model), feeds)
