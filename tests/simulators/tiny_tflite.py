"""A TFLite file written by hand: one fully connected layer, float32."""

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

Float32 = npt.NDArray[np.float32]


def tiny_tflite(
    weights: Float32,
    bias: Float32,
    *,
    resizable: bool = True,
    normalised: bool = False,
    seen_from: Float32 | None = None,
) -> bytes:
    """Float32 [1, features] -> float32 [1, classes]; ``weights`` is [features, classes].

    Where it is not ``resizable``, a RESHAPE to a constant [1, features] stands in front; where it
    is ``normalised``, an L2_NORMALIZATION, which XNNPACK does not take. ``seen_from``, float32
    [features, coordinates], adds an ``embedding``, which comes first among the outputs.
    """
    features, classes = weights.shape
    graph = schema.SubGraphT()
    graph.tensors = [
        _tensor(b"features", [1, features], 0),
        _tensor(b"weights", [classes, features], 1),
        _tensor(b"bias", [classes], 2),
        _tensor(b"logits", [1, classes], 0),
    ]
    graph.inputs, graph.outputs = [0], [3]
    layer = schema.OperatorT()
    layer.opcodeIndex, layer.inputs, layer.outputs = 0, [0, 1, 2], [3]
    layer.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    layer.builtinOptions = schema.FullyConnectedOptionsT()
    graph.operators = [layer]
    model = schema.ModelT()
    model.version, model.subgraphs = 3, [graph]
    model.operatorCodes = [_code(schema.BuiltinOperator.FULLY_CONNECTED)]
    model.buffers = [_buffer(b""), _buffer(weights.T.tobytes()), _buffer(bias.tobytes())]
    if not resizable:
        _reshape_first(model, graph, features)
    if normalised:
        _normalise_first(model, graph, features)
    if seen_from is not None:
        _embed(model, graph, seen_from)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _reshape_first(model: schema.ModelT, graph: schema.SubGraphT, features: int) -> None:
    shape = _tensor(b"shape", [2], 3)
    shape.type = schema.TensorType.INT32
    graph.tensors += [shape, _tensor(b"rows", [1, features], 0)]
    reshape = schema.OperatorT()
    reshape.opcodeIndex, reshape.inputs, reshape.outputs = 1, [0, 4], [5]
    graph.operators[0].inputs = [5, 1, 2]
    graph.operators.insert(0, reshape)
    model.operatorCodes.append(_code(schema.BuiltinOperator.RESHAPE))
    model.buffers.append(_buffer(np.array([1, features], np.int32).tobytes()))


def _embed(model: schema.ModelT, graph: schema.SubGraphT, seen_from: Float32) -> None:
    """Another layer on what the first one takes, and a signature that tells the outputs apart."""
    features, coordinates = seen_from.shape
    kernel, answer = len(graph.tensors), len(graph.tensors) + 1
    buffer = len(model.buffers)
    graph.tensors += [
        _tensor(b"seen_from", [coordinates, features], buffer),
        _tensor(b"a", [1, coordinates], 0),
    ]
    model.buffers.append(_buffer(np.ascontiguousarray(seen_from.T).tobytes()))
    layer = schema.OperatorT()
    layer.opcodeIndex, layer.outputs = 0, [answer]
    layer.inputs = [graph.operators[-1].inputs[0], kernel, -1]
    layer.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    layer.builtinOptions = schema.FullyConnectedOptionsT()
    graph.operators.append(layer)
    graph.outputs = [answer, 3]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs = [_named(b"features", 0)]
    signature.outputs = [_named(b"embedding", answer), _named(b"logits", 3)]
    model.signatureDefs = [signature]


def _named(name: bytes, tensor: int) -> schema.TensorMapT:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, tensor
    return entry


def _normalise_first(model: schema.ModelT, graph: schema.SubGraphT, features: int) -> None:
    graph.tensors.append(_tensor(b"normalised", [1, features], 0))
    norm = schema.OperatorT()
    norm.opcodeIndex, norm.inputs, norm.outputs = len(model.operatorCodes), [0], [4]
    norm.builtinOptionsType = schema.BuiltinOptions.L2NormOptions
    norm.builtinOptions = schema.L2NormOptionsT()
    graph.operators[0].inputs = [4, 1, 2]
    graph.operators.insert(0, norm)
    model.operatorCodes.append(_code(schema.BuiltinOperator.L2_NORMALIZATION))


def _code(operator: int) -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = operator
    code.version = 1
    return code


def _tensor(name: bytes, shape: list[int], buffer: int) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name, shape, buffer
    tensor.type = schema.TensorType.FLOAT32
    return tensor


def _buffer(data: bytes) -> schema.BufferT:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    return buffer
