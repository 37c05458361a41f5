"""Static int8 for onnxruntime: QDQ, per-channel weights, ranges from :mod:`converters.calibration`.

On x86 without VNNI, products of 8-bit values saturate a 16-bit sum; ``reduce_range`` keeps
weights to 7 bits, so that they cannot. Scaling raw features, whose ranges differ a thousandfold,
through one int8 tensor would cost more than it saves: what stands before the first product stays
in float. Between products values stay int8, or DequantizeLinear would run on its own.
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from converters import graph, onnx_graph
from converters.calibration import Range
from converters.export import strip
from converters.refusal import StageFailed

if TYPE_CHECKING:
    import onnx

SELF_QUANTISED = frozenset({"Conv", "ConvTranspose", "Gemm"})
"""Products whose float weights onnxruntime quantises on its own."""


def quantise(
    proto: "onnx.ModelProto",
    ranges: Mapping[str, Range],
    products: Collection[str],
    *,
    reduce_range: bool,
) -> bytes:
    """Quantise some products of a float graph and what carries int8 between them.

    Args:
        proto: float graph with shapes; stays as it is.
        ranges: of every float tensor.
        products: names of the nodes to quantise.
        reduce_range: weights of 7 bits.

    Raises:
        StageFailed: there is nothing to quantise.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.calibrate import TensorData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    chosen = graph.between_products(onnx_graph.steps(proto), onnx_graph.KINDS, products)
    if not chosen:
        raise StageFailed("the ONNX graph has no product that int8 could serve; use float32")
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    given = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
    }
    kinds = {node.op_type for node in copy.graph.node if node.name in chosen}
    quantizer = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=reduce_range,
        weight_qType=quantization.QuantType.QInt8,
        activation_qType=quantization.QuantType.QUInt8,
        tensors_range=quantization.calibrate.TensorsData(
            quantization.CalibrationMethod.MinMax, given
        ),
        nodes_to_quantize=chosen,
        nodes_to_exclude=[],
        op_types_to_quantize=sorted(kinds),
        extra_options={},
    )
    quantizer.quantize_model()
    _shield(quantizer.model.model)
    quantizer.model.topological_sort()
    return strip(quantizer.model.model)


def _shield(proto: "onnx.ModelProto") -> None:
    """Put something between int8 values and products that stay in float.

    Between DequantizeLinear and QuantizeLinear, onnxruntime quantises the weights of a float
    product itself, per tensor, when it loads the file. A maximum of one value changes nothing and
    is in no pattern that it knows.
    """
    import onnx

    weighted = {step.name for step in onnx_graph.steps(proto) if step.weights}
    dequantised = {n for node in proto.graph.node if _dequantises(node) for n in node.output}
    for node in list(proto.graph.node):
        if (
            node.op_type in SELF_QUANTISED
            and node.name in weighted
            and node.input[0] in dequantised
        ):
            name = f"{node.name}/InFloat"
            proto.graph.node.append(
                onnx.helper.make_node("Max", [node.input[0]], [name], name=name)
            )
            node.input[0] = name


def float_weights(data: bytes) -> set[str]:
    """Names of the nodes whose weights are float32 in a file."""
    import onnx

    proto = onnx.load_model_from_string(data)
    return {step.name for step in onnx_graph.steps(proto) if step.weights}


def _dequantises(node: Any) -> bool:
    return node is not None and node.op_type == "DequantizeLinear"
