"""Fine-tuning on networks whose static int8 loses accuracy, checked with the real runtime.

The network is trained on scikit-learn's digits. Its hidden channels are then stretched and
shrunk, which leaves what it answers unchanged (ReLU passes factors on) but lets one int8 tensor
hold channels that differ 300-fold: the usual ruin of static int8 (Nagel et al., "Data-Free
Quantization Through Weight Equalization and Bias Correction", 2019).
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from sklearn.datasets import load_digits
from torch import nn

from converters import qat
from converters.floating import FloatModel
from converters.quiet import silenced
from converters.refusal import StageFailed
from converters.tensors import Array, TensorSpec

PIXELS, CLASSES = 64, 10
EPOCHS, RATE = 30, 1e-3


class Digits:
    """Every fourth image tests."""

    def __init__(self) -> None:
        images, labels = load_digits(return_X_y=True)
        images = ((images - 5) / 6).astype(np.float32)
        test = np.arange(len(labels)) % 4 == 0
        self.rows, self.labels = {"x": images[~test]}, labels[~test].astype(np.int64)
        self.test, self.test_labels = {"x": images[test]}, labels[test]

    def accuracy(self, answers: dict[str, Array]) -> float:
        return float((answers["y"].argmax(axis=1) == self.test_labels).mean())


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


def as_model(module: nn.Module) -> FloatModel:
    return FloatModel(
        module=module.eval(),
        inputs=(TensorSpec(name="x", shape=(PIXELS,)),),
        outputs=(TensorSpec(name="y", shape=(CLASSES,)),),
    )


def trained(module: nn.Module, digits: Digits) -> FloatModel:
    rows, labels = torch.from_numpy(digits.rows["x"]), torch.from_numpy(digits.labels)
    optimiser = torch.optim.Adam(module.parameters(), 1e-2)
    draw = torch.Generator().manual_seed(0)
    module.train()
    for _ in range(30):
        for batch in torch.randperm(len(labels), generator=draw).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(rows[batch]), labels[batch]).backward()
            optimiser.step()
    return as_model(module)


@pytest.fixture(scope="module")
def perceptron(digits: Digits) -> FloatModel:
    torch.manual_seed(0)
    return trained(
        nn.Sequential(
            nn.Linear(PIXELS, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, CLASSES)
        ),
        digits,
    )


def stretched(model: FloatModel, decades: float) -> FloatModel:
    """The same function; hidden channels differ by a factor of ``10 ** decades``."""
    module = nn.Sequential(*model.module.children())
    module = type(module)(*(_copy(layer) for layer in module))
    for before, after in ((0, 2), (2, 4)):
        factors = torch.logspace(0, decades, 16)
        with torch.no_grad():
            module[before].weight.mul_(factors[:, None])
            module[before].bias.mul_(factors)
            module[after].weight.div_(factors)
    return as_model(module)


def _copy(layer: nn.Module) -> nn.Module:
    if not isinstance(layer, nn.Linear):
        return layer
    made = nn.Linear(layer.in_features, layer.out_features)
    made.load_state_dict(layer.state_dict())
    return made


def as_onnx(module: nn.Module) -> onnx.ModelProto:
    """The perceptron as an ONNX graph of matrix products."""
    nodes, weights, given = [], [], "x"
    layers = list(module.children())
    for place, layer in enumerate(layers):
        made = "y" if place == len(layers) - 1 else f"t{place}"
        if isinstance(layer, nn.Linear):
            for name, tensor in (("w", layer.weight), ("b", layer.bias)):
                array = tensor.detach().numpy()
                weights.append(numpy_helper.from_array(array, f"{name}{place}"))
            taken = [given, f"w{place}", f"b{place}"]
            nodes.append(helper.make_node("Gemm", taken, [made], transB=1))
        else:
            nodes.append(helper.make_node("Relu", [given], [made]))
        given = made
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", PIXELS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


class Reader(CalibrationDataReader):
    def __init__(self, rows: Array) -> None:
        self._left = iter(np.array_split(rows, 10))

    def get_next(self) -> dict[str, Array] | None:
        rows = next(self._left, None)
        return None if rows is None else {"x": rows}


def really_quantised(model: FloatModel, digits: Digits, folder: Path) -> dict[str, Array]:
    """Test answers of static int8 in onnxruntime; 7-bit weights, so that no processor saturates."""
    floating, quantised = folder / "float.onnx", folder / "int8.onnx"
    onnx.save(as_onnx(model.module), str(floating))
    with silenced():
        quantize_static(
            str(floating),
            str(quantised),
            Reader(digits.rows["x"]),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    session = onnxruntime.InferenceSession(str(quantised), providers=["CPUExecutionProvider"])
    return {"y": session.run(None, digits.test)[0]}


def test_it_regains_what_static_int8_loses(
    perceptron: FloatModel, digits: Digits, tmp_path: Path
) -> None:
    model = stretched(perceptron, 2.5)
    floating = digits.accuracy(model.run(digits.test))
    static = digits.accuracy(really_quantised(model, digits, tmp_path))
    tuned = qat.fine_tune(
        model,
        digits.rows,
        labels=digits.labels,
        epochs=EPOCHS,
        learning_rate=RATE,
        seed=0,
        weight_bits=7,
    )
    regained = digits.accuracy(really_quantised(tuned, digits, tmp_path))
    print(f"float {floating:.4f} static int8 {static:.4f} fine-tuned int8 {regained:.4f}")
    assert static < floating - 0.1
    assert regained > floating - 0.05


def test_the_simulation_answers_as_the_runtime_does(
    perceptron: FloatModel, digits: Digits, tmp_path: Path
) -> None:
    model = stretched(perceptron, 2.0)
    real = really_quantised(model, digits, tmp_path)["y"]
    simulated = qat.rounded(model, digits.rows, digits.test, weight_bits=7)["y"]
    lost = np.std(real - model.run(digits.test)["y"])
    assert np.std(real - simulated) < lost / 2


@pytest.mark.parametrize("bits", [3, 4])
def test_it_lets_a_network_live_with_few_bits(
    perceptron: FloatModel, digits: Digits, bits: int
) -> None:
    model = stretched(perceptron, 1.0)
    static = digits.accuracy(qat.rounded(model, digits.rows, digits.test, bits))
    tuned = qat.fine_tune(
        model,
        digits.rows,
        labels=digits.labels,
        epochs=10,
        learning_rate=RATE,
        seed=0,
        weight_bits=bits,
    )
    regained = digits.accuracy(qat.rounded(tuned, digits.rows, digits.test, bits))
    print(f"{bits} bits: static {static:.4f} fine-tuned {regained:.4f}")
    assert regained > static + 0.02


def test_labels_are_not_needed(perceptron: FloatModel, digits: Digits) -> None:
    model = stretched(perceptron, 1.0)
    wanted = model.run(digits.test)["y"]

    def error(tuned: FloatModel) -> float:
        answers = qat.rounded(tuned, digits.rows, digits.test, 4)["y"]
        return float(np.sqrt(np.mean((answers - wanted) ** 2)) / wanted.std())

    tuned = qat.fine_tune(
        model,
        digits.rows,
        teacher=model.run(digits.rows),
        epochs=10,
        learning_rate=RATE,
        seed=0,
        weight_bits=4,
    )
    assert error(tuned) < 0.85 * error(model)


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(2),
        nn.Conv1d(8, 8, 3),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(8 * 14, CLASSES),
    )


def tuned_a_little(model: FloatModel, digits: Digits) -> FloatModel:
    return qat.fine_tune(
        model, digits.rows, labels=digits.labels, epochs=1, learning_rate=RATE, seed=3
    )


def on_grid(weight: torch.Tensor, levels: int = 127) -> bool:
    flat = weight.detach().flatten(1)
    steps = flat / (flat.abs().amax(1, keepdim=True) / levels)
    return bool(torch.allclose(steps, steps.round(), atol=1e-3))


def test_only_weights_change_and_they_stand_on_their_grid(digits: Digits) -> None:
    model = trained(convolutional(), digits)
    before = model.digest()
    tuned = tuned_a_little(model, digits)
    assert model.digest() == before
    assert str(tuned.module) == str(model.module)
    assert list(tuned.module.state_dict()) == list(model.module.state_dict())
    assert tuned.digest() != before
    assert not any(module.training for module in tuned.module.modules())
    products = [m for m in tuned.module if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)]
    assert len(products) == 4
    for layer in products:
        assert on_grid(layer.weight)
    # A batch norm that is folded later scales whole channels, and the grid with them.
    folded = torch.nn.utils.fusion.fuse_conv_bn_eval(tuned.module[1], tuned.module[2])
    assert on_grid(folded.weight)


def test_equal_seeds_give_equal_bytes_and_leave_torch_alone(
    perceptron: FloatModel, digits: Digits
) -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    first = tuned_a_little(perceptron, digits)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    torch.manual_seed(99)
    assert tuned_a_little(perceptron, digits).digest() == first.digest()


def test_an_exported_program_is_tuned_as_its_module_is(
    perceptron: FloatModel, digits: Digits
) -> None:
    rows = torch.from_numpy(digits.rows["x"][:4])
    batch = torch.export.Dim("batch", min=2, max=4096)
    program = torch.export.export(perceptron.module, (rows,), dynamic_shapes=({0: batch},))
    model = FloatModel(
        module=program.module(), inputs=perceptron.inputs, outputs=perceptron.outputs
    )
    own = tuned_a_little(perceptron, digits).run(digits.test)["y"]
    assert np.allclose(tuned_a_little(model, digits).run(digits.test)["y"], own, atol=1e-4)


def test_a_model_without_products_is_refused(digits: Digits) -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(()))

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.factor * rows[:, :CLASSES]

    with pytest.raises(StageFailed, match="no linear layer"):
        tuned_a_little(as_model(Scale()), digits)


def test_training_that_runs_away_is_refused(perceptron: FloatModel, digits: Digits) -> None:
    with pytest.raises(StageFailed, match="diverged"):
        qat.fine_tune(
            perceptron, digits.rows, labels=digits.labels, epochs=2, learning_rate=1e30, seed=0
        )


def test_a_goal_is_needed(perceptron: FloatModel, digits: Digits) -> None:
    with pytest.raises(ValueError, match="labels"):
        qat.fine_tune(perceptron, digits.rows, epochs=1, learning_rate=RATE, seed=0)
