from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from converters.model_file import ModelFile
from converters.refusal import StageFailed
from converters.targets import open_target, ort
from converters.targets.target import Target
from edge_core.errors import Unavailable
from tests.converters.targets import networks
from tests.converters.targets.networks import Name

ARCHITECTURES = ["68", "73", "75", "79"]
MEAN = np.linspace(-3, 3, 12, dtype=np.float32)
NAMES: list[Name] = ["mlp", "cnn", "two ends"]


def opened(architecture: str = "73") -> Target:
    """The target, where the vendor's package is installed: about 500 MB."""
    target = open_target(f"npu-qnn-v{architecture}")
    if not target.tool().runs:
        pytest.skip(target.tool().missing)
    return target


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_context_binary_answers_as_the_int8_file_does(architecture: str) -> None:
    target, model = opened(architecture), networks.onnx_int8("cnn")
    feeds = networks.rows("cnn", 20, seed=5)

    compiled = target.compile(model)
    ran = target.run(compiled, feeds, measure=True)

    assert ran is not None
    assert b"EPContext" in compiled.data
    assert networks.error(ran.outputs, networks.reference("cnn", feeds)) < 0.05
    assert networks.error(ran.outputs, ort.runner(model)(feeds)) < 0.03
    assert "HTP simulated" in ran.by
    assert not ran.on_hardware
    assert ran.latency_us == {}


@pytest.mark.parametrize("name", NAMES)
def test_answers_come_by_their_names(name: Name) -> None:
    target, feeds = opened(), networks.rows(name, 20, seed=5)

    ran = target.run(target.compile(networks.onnx_int8(name)), feeds, measure=False)

    assert ran is not None
    expected = ort.runner(networks.onnx_int8(name))(feeds)
    assert networks.error(ran.outputs, expected) < 0.03


def test_every_operator_is_on_the_npu() -> None:
    target = opened()

    placed = target.placement(target.compile(networks.onnx_int8("cnn")))

    assert placed.misplaced == ()
    assert {name.split("/")[0] for name in placed.operators} == {"HTP"}
    assert {"HTP/Conv": 3, "HTP/Gemm": 1}.items() <= placed.operators.items()


def test_a_product_left_in_float_is_named_unless_on_purpose() -> None:
    target = opened()
    model = networks.onnx_int8("mlp", leave=("node_linear",))
    meant = msgspec.structs.replace(model, scheme="mixed", float_layers=("node_linear",))

    assert target.placement(target.compile(model)).misplaced == ("node_linear in float",)
    assert target.placement(target.compile(meant)).misplaced == ()


def test_equal_models_give_equal_files_without_paths() -> None:
    target, model = opened(), networks.onnx_int8("mlp")

    first, second = target.compile(model), target.compile(model)

    assert first.data == second.data
    assert b"/tmp" not in first.data


def centred(model: ModelFile) -> ModelFile:
    """The model behind a subtraction in float."""
    import onnx
    from onnx import helper, numpy_helper

    proto = onnx.load_model_from_string(model.data)
    name = proto.graph.input[0].name
    for node in proto.graph.node:
        for place, read in enumerate(node.input):
            if read == name:
                node.input[place] = "centred"
    proto.graph.initializer.append(numpy_helper.from_array(MEAN, "mean"))
    proto.graph.node.insert(0, helper.make_node("Sub", [name, "mean"], ["centred"], name="centre"))
    return msgspec.structs.replace(model, data=proto.SerializeToString())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_inputs_may_be_centred_in_float(architecture: str) -> None:
    target, model = opened(architecture), centred(networks.onnx_int8("mlp"))
    feeds = networks.rows("mlp", 20, seed=5)
    shifted = {"features": feeds["features"] + MEAN}

    ran = target.run(target.compile(model), shifted, measure=False)

    assert ran is not None
    assert networks.error(ran.outputs, networks.reference("mlp", feeds)) < 0.05


def other_operator(model: ModelFile, kind: str, other: str) -> ModelFile:
    import onnx

    proto = onnx.load_model_from_string(model.data)
    for node in proto.graph.node:
        if node.op_type == kind:
            node.op_type = other
    return msgspec.structs.replace(model, data=proto.SerializeToString())


def test_an_operator_that_the_npu_does_not_take_is_named() -> None:
    model = other_operator(networks.onnx_int8("sines"), "Sin", "Acosh")

    with pytest.raises(StageFailed, match="the HTP does not take Acosh node_sin"):
        opened().compile(model)


@pytest.mark.parametrize("change", [{"format": "tflite"}, {"inputs": ()}])
def test_files_that_are_not_what_they_should_be_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(StageFailed):
        opened().compile(msgspec.structs.replace(networks.onnx_int8("mlp"), **change))


def test_without_the_package_the_target_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERINUS_TARGETS", str(tmp_path))

    with pytest.raises(Unavailable, match="serinus-convert install-target npu-qnn-v73"):
        open_target("npu-qnn-v73").compile(networks.onnx_int8("mlp"))
