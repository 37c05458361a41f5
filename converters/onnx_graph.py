"""ONNX files as steps, and a look at all their tensors while they run."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from converters.graph import Kinds, Step
from converters.model_file import ModelFile
from converters.tensors import Array, Feeds, rows_of

if TYPE_CHECKING:
    import onnx

MAX_BYTES = 64 * 2**20
"""Of all tensors of one batch that is watched."""
WEIGHT_INPUTS = {"GRU": (1, 2), "LSTM": (1, 2), "RNN": (1, 2), "Gather": (0,)}
"""Where weights stand; everywhere else at place 1, or 0 and 1 for products of two tensors."""
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", *WEIGHT_INPUTS})
FIRST_ONLY = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Slice", "Split", "Pad", "Clip"})
"""Only the first input is data; the others are sizes and limits."""
KINDS = Kinds(
    products=frozenset({"Conv", "Gemm", "MatMul", "Gather"}),
    carried=frozenset(
        {
            "Add",
            "AveragePool",
            "Concat",
            "Flatten",
            "GlobalAveragePool",
            "LeakyRelu",
            "MaxPool",
            "Mul",
            "Pad",
            "Reshape",
            "Sigmoid",
            "Slice",
            "Split",
            "Squeeze",
            "Transpose",
            "Unsqueeze",
        }
    ),
    absorbed=frozenset({"Clip", "Relu"}),
)


def load(file: ModelFile) -> "onnx.ModelProto":
    """Parse a file's bytes and infer the shapes of its tensors."""
    import onnx

    return onnx.shape_inference.infer_shapes(onnx.load_model_from_string(file.data))


def steps(proto: "onnx.ModelProto") -> list[Step]:
    """The graph's nodes, in order."""
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    floats = float_tensors(proto) | {value.name for value in proto.graph.input}
    found = []
    for node in proto.graph.node:
        data = node.input[:1] if node.op_type in FIRST_ONLY else node.input
        found.append(
            Step(
                name=node.name,
                kind=node.op_type,
                inputs=tuple(n for n in data if n not in constants and n in floats),
                outputs=tuple(node.output),
                weights=tuple(_weights(node, constants)),
            )
        )
    return found


def products(proto: "onnx.ModelProto") -> list[str]:
    """Names of the products that onnxruntime has an int8 kernel for."""
    weighted = {step.name for step in steps(proto) if step.weights}
    floats = float_tensors(proto)
    return [
        node.name
        for node in proto.graph.node
        if node.op_type in KINDS.products
        and (node.op_type != "Gather" or node.name in weighted)
        and node.output[0] in floats
    ]


def float_tensors(proto: "onnx.ModelProto") -> set[str]:
    """Names of float32 tensors that nodes make."""
    import onnx

    made = {name for node in proto.graph.node for name in node.output}
    return {
        value.name
        for value in (*proto.graph.value_info, *proto.graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and value.name in made
    }


def watch(proto: "onnx.ModelProto", rows: Feeds) -> Iterator[dict[str, Array]]:
    """Run rows and show every float tensor, inputs included, batch by batch."""
    import numpy as np
    import onnx

    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    answered = {value.name for value in proto.graph.output}
    wanted = sorted(float_tensors(proto))
    shown.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in wanted
        if name not in answered
    )
    session = open_session(shown.SerializeToString())
    start, size = 0, 1
    while start < rows_of(rows):
        batch = {name: array[start : start + size] for name, array in rows.items()}
        values = dict(zip(wanted, session.run(wanted, batch), strict=True))
        values |= {n: a for n, a in batch.items() if a.dtype == np.float32}
        yield values
        start += size
        size = max(1, size * MAX_BYTES // max(1, sum(array.nbytes for array in values.values())))


def open_session(data: bytes) -> Any:
    """An onnxruntime session on one thread of the CPU, quiet."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _weights(node: Any, constants: Any) -> Iterator[str]:
    import onnx

    if node.op_type not in WEIGHTED:
        return
    for place in WEIGHT_INPUTS.get(node.op_type, (0, 1)):
        found = constants.get(node.input[place]) if place < len(node.input) else None
        if found is not None and found.data_type == onnx.TensorProto.FLOAT and len(found.dims) > 1:
            yield found.name
