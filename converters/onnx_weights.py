"""Weight-only int8 for ONNX: weights are stored per channel in int8, computation stays in float.

Each weight becomes int8 values and a DequantizeLinear, symmetric and per output channel, as
onnxruntime's own weight quantisation has it; where it can, onnxruntime fuses the pair.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from converters import onnx_graph
from converters.export import strip
from converters.tensors import Array

if TYPE_CHECKING:
    import onnx

LARGEST = 127
SMALLEST_SCALE = 1e-12


def quantise(proto: "onnx.ModelProto", kept: Collection[str]) -> bytes:
    """Store the weights of all nodes but ``kept``, by name, in int8; ``proto`` stays as it is."""
    import onnx
    from onnx import numpy_helper

    made = onnx.ModelProto()
    made.CopyFrom(proto)
    steps = {step.name: step for step in onnx_graph.steps(made)}
    blocked = {name for step in steps.values() if step.name in kept for name in step.weights}
    held = {tensor.name: tensor for tensor in made.graph.initializer}
    done: dict[str, str] = {}
    nodes = []
    for node in made.graph.node:
        for name in steps[node.name].weights:
            if name in blocked:
                continue
            if name not in done:
                axis = _axis(node, list(node.input).index(name), len(held[name].dims))
                values, scales = to_int8(numpy_helper.to_array(held[name]), axis)
                done[name] = f"{name}/dequantised"
                parts = [f"{name}/int8", f"{name}/scale"]
                made.graph.initializer.append(numpy_helper.from_array(values, parts[0]))
                made.graph.initializer.append(numpy_helper.from_array(scales, parts[1]))
                nodes.append(
                    onnx.helper.make_node(
                        "DequantizeLinear", parts, [done[name]], name=done[name], axis=axis
                    )
                )
            for place, given in enumerate(node.input):
                if given == name:
                    node.input[place] = done[name]
        nodes.append(node)
    _replace(made.graph, nodes, set(done))
    return strip(made)


def to_int8(weights: Array, axis: int) -> tuple[Array, Array]:
    """Quantise symmetrically per channel: int8 values of the same shape, and scales by channel."""
    others = tuple(place for place in range(weights.ndim) if place != axis)
    largest = np.abs(weights).max(axis=others, keepdims=True)
    scales = np.maximum(largest / LARGEST, SMALLEST_SCALE).astype(np.float32)
    values = np.clip(np.round(weights / scales), -LARGEST, LARGEST).astype(np.int8)
    return values, scales.reshape(-1)


def _axis(node: Any, place: int, dimensions: int) -> int:
    """Where a weight's output channels are."""
    settings = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "MatMul":
        return dimensions - 1 if place == 1 else dimensions - 2
    if node.op_type == "Gemm" and place == 1:
        return 0 if settings.get("transB") else 1
    if node.op_type == "Gemm":
        return 1 if settings.get("transA") else 0
    return 1 if node.op_type in ("ConvTranspose", "GRU", "LSTM", "RNN") else 0


def _replace(graph: Any, nodes: list[Any], gone: set[str]) -> None:
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    left = [tensor for tensor in graph.initializer if tensor.name not in gone]
    kept = [type(tensor).FromString(tensor.SerializeToString()) for tensor in left]
    del graph.node[:]
    graph.node.extend(copies)
    del graph.initializer[:]
    graph.initializer.extend(kept)
