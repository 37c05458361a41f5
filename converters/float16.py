"""Half precision, for GPUs: half the size, float32 inputs and outputs.

ONNX files compute in fp16 between a Cast at each end. TFLite files hold fp16 weights and say
nothing of arithmetic; a GPU delegate computes in fp16, a CPU in fp32.
"""

from collections.abc import Collection
from typing import Any

from converters import onnx_graph, tflite_graph, tflite_int8
from converters.export import strip
from converters.model_file import ModelFile


def to_float16(floats: ModelFile, kept: Collection[str] = ()) -> bytes:
    """Turn a float file to half precision.

    Args:
        floats: the float file.
        kept: names of nodes or operators that stay in float32.
    """
    return _onnx(floats, kept) if floats.format == "onnx" else _tflite(floats, kept)


def _onnx(floats: ModelFile, kept: Collection[str]) -> bytes:
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    made = convert_float_to_float16(
        onnx_graph.load(floats), keep_io_types=True, node_block_list=sorted(kept)
    )
    _drop_needless_casts(made.graph)
    model = OnnxModel(made)
    # The casts at the inputs come last otherwise, and the standard wants makers before readers.
    model.topological_sort(is_deterministic=True)
    return strip(model.model)


def _drop_needless_casts(graph: Any) -> None:
    """Feed float32 weights of kept nodes without the Cast to float32 that the tool puts there."""
    import onnx

    floats = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    casts = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "Cast"
        and node.input[0] in floats
        and node.attribute[0].i == onnx.TensorProto.FLOAT
    }
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in casts:
                node.input[place] = casts[name].input[0]
    for node in casts.values():
        graph.node.remove(node)


def _tflite(floats: ModelFile, kept: Collection[str]) -> bytes:
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer

    made = quantizer.Quantizer(floats.data)
    made.add_weight_only_config(
        ".*",
        qtyping.TFLOperationName.ALL_SUPPORTED,
        num_bits=16,
        granularity=qtyping.QuantGranularity.TENSORWISE,
        algorithm_key=algorithm_manager.AlgorithmName.FLOAT_CASTING,
    )
    tflite_int8.leave(made, tflite_graph.steps(floats.data), set(kept))
    return bytes(made.quantize(enable_progress_report=False).quantized_model)
