"""TFLite files as steps, and a look at all their tensors while they run."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from converters.graph import Kinds, Step
from converters.model_file import ModelFile
from converters.tensors import Array, Feeds, rows_of, take

MAX_BYTES = 64 * 2**20
"""Of all tensors of the rows that are shown at once."""
KINDS = Kinds(
    products=frozenset(
        {
            "BATCH_MATMUL",
            "CONV_2D",
            "DEPTHWISE_CONV_2D",
            "EMBEDDING_LOOKUP",
            "FULLY_CONNECTED",
            "TRANSPOSE_CONV",
        }
    ),
    carried=frozenset(
        {
            "ADD",
            "AVERAGE_POOL_2D",
            "CONCATENATION",
            "LOGISTIC",
            "MAX_POOL_2D",
            "MEAN",
            "MUL",
            "PAD",
            "PADV2",
            "RESHAPE",
            "SLICE",
            "SPLIT",
            "STRIDED_SLICE",
            "SUB",
            "TANH",
            "TRANSPOSE",
            "UNPACK",
        }
    ),
    absorbed=frozenset({"RELU"}),
)


class Tensor:
    """One tensor of a file: name, NumPy dtype name, shape, constant or not."""

    __slots__ = ("constant", "dtype", "name", "shape")

    def __init__(self, found: Any, buffers: Any) -> None:
        self.name: str = found.name.decode()
        self.dtype = _names("TensorType")[found.type]
        self.shape = () if found.shape is None else tuple(int(size) for size in found.shape)
        data = buffers[found.buffer].data
        self.constant = data is not None and len(data) > 0


class Operator:
    """One operator of a file: kind and tensors."""

    __slots__ = ("inputs", "kind", "outputs")

    def __init__(self, kind: str, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        self.kind = kind
        self.inputs = inputs
        self.outputs = outputs

    @property
    def name(self) -> str:
        """The first output's name."""
        return self.outputs[0].name if self.outputs else self.kind


def operators(data: bytes) -> list[Operator]:
    """All operators of a file, in order."""
    from ai_edge_litert.tools import flatbuffer_utils

    file = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    kinds = _names("BuiltinOperator")
    found = []
    for subgraph in file.subgraphs:
        tensors = [Tensor(tensor, file.buffers) for tensor in subgraph.tensors]
        for step in subgraph.operators:
            code = file.operatorCodes[step.opcodeIndex]
            kind = kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
            inputs = [tensors[i] for i in step.inputs if i >= 0]
            found.append(Operator(kind, inputs, [tensors[i] for i in step.outputs]))
    return found


def signature(data: bytes) -> tuple[dict[str, int], dict[str, int]]:
    """Inputs and outputs as people named them -> the tensor's place in the file."""
    from ai_edge_litert.tools import flatbuffer_utils

    file = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    found = file.signatureDefs[0]
    inputs, outputs = (
        {entry.name.decode(): int(entry.tensorIndex) for entry in entries}
        for entries in (found.inputs, found.outputs)
    )
    return inputs, outputs


def steps(data: bytes) -> list[Step]:
    """The file's operators as plain steps."""
    return [
        Step(
            name=operator.name,
            kind=operator.kind,
            inputs=tuple(t.name for t in operator.inputs if _computed(t)),
            outputs=tuple(tensor.name for tensor in operator.outputs),
            weights=tuple(
                t.name for t in operator.inputs if operator.kind in KINDS.products and _is_weight(t)
            ),
        )
        for operator in operators(data)
    ]


def products(data: bytes) -> list[str]:
    """Names of the operators that int8 is for."""
    return [step.name for step in steps(data) if step.kind in KINDS.products]


def watch(file: ModelFile, rows: Feeds) -> Iterator[dict[str, Array]]:
    """Run rows one by one and show every computed float tensor, some rows at a time."""
    wanted = {t.name for o in operators(file.data) for t in (*o.inputs, *o.outputs) if _computed(t)}
    interpreter = open_interpreter(file.data, preserve=True)
    signature = interpreter.get_signature_runner()
    places = {
        detail["name"]: detail["index"]
        for detail in interpreter.get_tensor_details()
        if detail["name"] in wanted
    }
    gathered: dict[str, list[Array]] = {name: [] for name in places}
    held = 0
    for row in range(rows_of(rows)):
        signature(**take(rows, [row]))
        for name, place in places.items():
            gathered[name].append(interpreter.get_tensor(place))
            held += gathered[name][-1].nbytes
        if held > MAX_BYTES or row == rows_of(rows) - 1:
            yield {name: np.stack(values) for name, values in gathered.items()}
            gathered, held = {name: [] for name in places}, 0


def open_interpreter(data: bytes, *, preserve: bool = False) -> Any:
    """A LiteRT interpreter on one thread.

    Args:
        data: the file.
        preserve: keep the values of every tensor; kernels then run without delegates, which
            would fuse some away.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if preserve else OpResolverType.AUTO
    return Interpreter(
        model_content=data,
        num_threads=1,
        experimental_op_resolver_type=kernels,
        experimental_preserve_all_tensors=preserve,
    )


def _computed(tensor: Tensor) -> bool:
    return tensor.dtype == "FLOAT32" and not tensor.constant


def _is_weight(tensor: Tensor) -> bool:
    return tensor.dtype == "FLOAT32" and tensor.constant and len(tensor.shape) > 1


@functools.cache
def _names(what: str) -> dict[int, str]:
    """Number -> name of one of the file format's enumerations."""
    from ai_edge_litert import schema_py_generated as schema

    found: dict[int, str] = {
        number: name
        for name, number in vars(getattr(schema, what)).items()
        if isinstance(number, int)
    }
    return found
