import platform

import msgspec
import pytest

from converters.targets import open_target, ort
from tests.converters.targets import networks

HERE = platform.machine()


def test_quantised_products_are_not_misplaced() -> None:
    for name in ("mlp", "cnn", "two ends"):
        for runtime, model in networks.cpu_files(name).items():
            target = open_target(f"cpu-{HERE}-{runtime}")
            assert target.placement(target.compile(model)).misplaced == ()


@pytest.mark.parametrize("left", ["node_conv2d", "node_conv2d_1", "node_linear"])
def test_onnx_layers_left_in_float_are_named_unless_declared(left: str) -> None:
    model = networks.onnx_int8("cnn", (left,))
    misplaced = ort.placed(ort.optimised(model.data), model).misplaced

    assert len(misplaced) == 1
    assert f" {left} (" in misplaced[0]
    by_module = {"origins": {left: "body.some_layer"}, "float_layers": ("body.some_layer",)}
    for declared in ({"float_layers": (left,)}, by_module):
        meant = msgspec.structs.replace(model, scheme="mixed", **declared)
        assert ort.placed(ort.optimised(model.data), meant).misplaced == ()


def test_an_unfused_dequantisation_is_called_so() -> None:
    model = networks.onnx_int8("two ends", ("node_linear_2",))
    misplaced = ort.placed(ort.optimised(model.data), model).misplaced

    assert misplaced == ("Gemm node_linear_2 (DequantizeLinear not fused)",)


def test_float_onnx_sold_as_int8_is_found() -> None:
    model = msgspec.structs.replace(networks.onnx_float("cnn"), scheme="int8 static")
    misplaced = ort.placed(ort.optimised(model.data), model).misplaced

    names = [text.split()[1] for text in misplaced]
    assert names == ["node_conv2d", "node_conv2d_1", "node_conv2d_2", "node_linear"]


def test_tflite_layers_left_in_float_are_named_unless_declared() -> None:
    target = open_target("cpu-x86_64-tflite")
    model = networks.tflite_int8("cnn", "float32", leave="CONV_2D")
    (misplaced,) = target.placement(target.compile(model)).misplaced

    assert misplaced.startswith("CONV_2D ")
    assert "DEQUANTIZE not fused" in misplaced
    layer = misplaced.split(" ", 1)[1].removesuffix(" (DEQUANTIZE not fused)")
    silent = msgspec.structs.replace(model, float_layers=(layer,))
    assert target.placement(target.compile(silent)).misplaced == (misplaced,)
    meant = msgspec.structs.replace(silent, scheme="mixed")
    assert target.placement(target.compile(meant)).misplaced == ()


def test_a_float_convolution_that_onnxruntime_quantises_itself_counts_as_quantised() -> None:
    """Between int8 neighbours onnxruntime quantises it anew, so it does not run in float."""
    model = networks.onnx_int8("cnn", ("node_conv2d_2",))
    placement = ort.placed(ort.optimised(model.data), model)

    assert placement.misplaced == ()
    assert placement.operators["CPUExecutionProvider/QLinearConv"] == 3
