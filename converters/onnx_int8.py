"""Int8 for onnxruntime: QDQ, per-channel weights, one bit of headroom where the target needs it.

On x86 without VNNI, products of 8-bit values saturate a 16-bit sum; ``reduce_range`` keeps
weights to 7 bits, so that they cannot. Quantised are products and what follows them: scaling raw
features, whose ranges differ a thousandfold, through one int8 tensor would cost more than it
saves.
"""

import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from converters.calibration import Ranges
from converters.export import strip
from converters.model_file import ModelFile
from converters.refusal import StageFailed

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
RECURRENT = ("GRU", "LSTM", "RNN")
FOLLOWING = (
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Flatten",
    "GlobalAveragePool",
    "MaxPool",
    "Mul",
    "Pad",
    "Relu",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
"""What keeps int8 between two products; everything else runs in float between them."""


def static(
    floats: ModelFile, ranges: Ranges, *, reduce_range: bool, keep_float: Collection[str]
) -> bytes:
    """Weights and activations in int8.

    Args:
        floats: the float file.
        ranges: of its tensors.
        reduce_range: weights of 7 bits.
        keep_float: layers, by node name, that stay in float.

    Raises:
        StageFailed: an operator has no int8 kernel; it is named with its module.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization import calibrate

    proto = onnx.load_model_from_string(floats.data)
    _refuse_recurrent(proto, floats)
    chosen = [node.name for node in _after_products(proto) if node.name not in keep_float]
    if not chosen:
        return floats.data
    held = {n: tuple(np.array(v, np.float32) for v in limits) for n, limits in ranges.items()}
    measured = calibrate.TensorsData(quantization.CalibrationMethod.MinMax, held)
    with tempfile.TemporaryDirectory() as folder:
        source, known, made = (Path(folder) / name for name in ("f.onnx", "ranges", "q.onnx"))
        source.write_bytes(floats.data)
        calibrate.save_tensors_data(measured, known)
        try:
            quantization.quantize_static(
                str(source),
                str(made),
                calibration_data_reader=None,
                calibration_cache_path=str(known),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=[*PRODUCTS, *FOLLOWING],
                nodes_to_quantize=chosen,
                per_channel=True,
                reduce_range=reduce_range,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        except (ValueError, RuntimeError, NotImplementedError) as error:
            told = " ".join(str(error).split())[:200]
            raise StageFailed(f"ONNX int8: {told}") from error
        return strip(onnx.load(str(made)))


def weight_only(floats: ModelFile, keep_float: Collection[str]) -> bytes:
    """Weights in int8 by channel, widened when the model is loaded; products run in float."""
    import onnx
    from onnx import helper, numpy_helper

    proto = onnx.load_model_from_string(floats.data)
    constants = {entry.name: entry for entry in proto.graph.initializer}
    nodes: list[Any] = []
    done: set[str] = set()
    for node in proto.graph.node:
        weight = _weight(node, constants)
        if weight and node.name not in keep_float and weight not in done:
            done.add(weight)
            array = numpy_helper.to_array(constants[weight])
            axis = _channels(node)
            values, scales = _by_channel(array, axis)
            proto.graph.initializer.remove(constants[weight])
            for name, held in ((f"{weight}/int8", values), (f"{weight}/scale", scales)):
                proto.graph.initializer.append(numpy_helper.from_array(held, name))
            names = [f"{weight}/int8", f"{weight}/scale"]
            nodes.append(helper.make_node("DequantizeLinear", names, [weight], axis=axis))
        nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return strip(proto)


def half(floats: ModelFile) -> bytes:
    """Weights and products in float16; inputs and outputs stay float32."""
    import onnx
    from onnxruntime.transformers import float16

    proto = onnx.load_model_from_string(floats.data)
    return strip(float16.convert_float_to_float16(proto, keep_io_types=True))


def layers(floats: ModelFile) -> list[str]:
    """Layers with weights, by node name, in the order of the graph."""
    import onnx

    proto = onnx.load_model_from_string(floats.data)
    constants = {entry.name: entry for entry in proto.graph.initializer}
    return [node.name for node in proto.graph.node if _weight(node, constants)]


def _after_products(proto: Any) -> list[Any]:
    """Products and what follows them; what stands in front only prepares the input."""
    reached: set[str] = set()
    kept = []
    for node in proto.graph.node:
        if node.op_type in PRODUCTS or reached.intersection(node.input):
            reached.update(node.output)
            if node.op_type in PRODUCTS or node.op_type in FOLLOWING:
                kept.append(node)
    return kept


def _refuse_recurrent(proto: Any, floats: ModelFile) -> None:
    for node in proto.graph.node:
        if node.op_type in RECURRENT:
            module = floats.origins.get(node.name) or node.name
            raise StageFailed(
                f"operator {node.op_type} of module {module} has no static int8 kernel in "
                "onnxruntime; quantise its weights only (--weight-only), or build it for LiteRT"
            )


def _weight(node: Any, constants: dict[str, Any]) -> str | None:
    """Name of the constant that a product multiplies with."""
    if node.op_type in PRODUCTS and len(node.input) > 1 and node.input[1] in constants:
        return str(node.input[1])
    return None


def _channels(node: Any) -> int:
    """Axis of the weight that holds output channels."""
    if node.op_type == "Conv":
        return 0
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if node.op_type == "Gemm" and transposed else 1


def _by_channel(array: Any, axis: int) -> tuple[Any, Any]:
    """Symmetric int8 values and one scale for each channel."""
    others = tuple(place for place in range(array.ndim) if place != axis)
    largest = np.abs(array).max(axis=others, keepdims=True)
    scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    values = np.clip(np.rint(array / scales), -127, 127).astype(np.int8)
    return values, scales.ravel()
