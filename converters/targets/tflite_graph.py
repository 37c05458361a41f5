"""What a TFLite file holds, read from its bytes: operators, and the types of their tensors."""

from typing import Any

import msgspec

from edge_core.errors import InvalidInput

LARGEST_BYTES = 1 << 30
PRODUCTS = frozenset(
    {"FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D", "BATCH_MATMUL"}
)
"""Operators that multiply by weights, or rows by rows."""


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """One operator of the file."""

    kind: str
    """As the schema names it, such as ``CONV_2D``; a custom one by its own name."""
    output: str
    """Name of its first output tensor; empty where it has none."""
    reads: tuple[str, ...]
    """Types of its inputs, such as ``INT8``; constants included, absent ones left out."""
    writes: tuple[str, ...]
    """Types of its outputs."""
    dequantised: bool
    """Whether a DEQUANTIZE stands right before one of its inputs."""

    @property
    def precision(self) -> str:
        """Type that it computes in: that of its first input, in lower case."""
        return self.reads[0].lower() if self.reads else "none"


class End(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output of the file."""

    name: str
    """As the signature calls it; the tensor's own name where there is no signature."""
    type: str
    """Such as ``INT8``."""
    shape: tuple[int, ...]
    """With the batch."""
    scale: float
    """Real value of one int8 step; 0 where the tensor is not quantised."""
    zero_point: int

    @property
    def dtype(self) -> str:
        """Numpy's name of the type, such as ``int8``."""
        return self.type.lower()


class Ends(msgspec.Struct, frozen=True, kw_only=True):
    """The file's inputs and outputs, in its own order."""

    inputs: tuple[End, ...]
    outputs: tuple[End, ...]


def operators(data: bytes) -> list[Operator]:
    """All operators of all subgraphs, in order.

    Raises:
        InvalidInput: the bytes are no TFLite file.
    """
    model = _parse(data)
    codes = [_kind(code) for code in model.operatorCodes or []]
    found: list[Operator] = []
    for graph in model.subgraphs:
        types = [_type(tensor) for tensor in graph.tensors]
        floats_made: set[int] = set()
        for entry in _list(graph.operators):
            reads = [int(place) for place in _list(entry.inputs) if place >= 0]
            writes = [int(place) for place in _list(entry.outputs) if place >= 0]
            kind = codes[entry.opcodeIndex]
            found.append(
                Operator(
                    kind=kind,
                    output=_name(graph.tensors[writes[0]]) if writes else "",
                    reads=tuple(types[place] for place in reads),
                    writes=tuple(types[place] for place in writes),
                    dequantised=not floats_made.isdisjoint(reads),
                )
            )
            if kind == "DEQUANTIZE":
                floats_made.update(writes)
    return found


def ends(data: bytes) -> Ends:
    """Inputs and outputs of the first subgraph.

    Raises:
        InvalidInput: the bytes are no TFLite file.
    """
    model = _parse(data)
    graph = model.subgraphs[0]
    signature = next((s for s in _list(model.signatureDefs) if s.subgraphIndex == 0), None)
    return Ends(
        inputs=_ends(graph, graph.inputs, _list(signature and signature.inputs)),
        outputs=_ends(graph, graph.outputs, _list(signature and signature.outputs)),
    )


def _ends(graph: Any, places: Any, called: list[Any]) -> tuple[End, ...]:
    names = {entry.tensorIndex: entry.name.decode() for entry in called}
    found = []
    for place in _list(places):
        tensor = graph.tensors[place]
        steps = tensor.quantization
        quantised = steps is not None and len(_list(steps.scale)) == 1
        found.append(
            End(
                name=names.get(place, _name(tensor)),
                type=_type(tensor),
                shape=tuple(int(size) for size in _list(tensor.shape)),
                scale=float(steps.scale[0]) if quantised else 0.0,
                zero_point=int(steps.zeroPoint[0]) if quantised else 0,
            )
        )
    return tuple(found)


def _parse(data: bytes) -> Any:
    """The whole file as objects; what is cut off or points outside is refused."""
    from ai_edge_litert import schema_py_generated as schema

    if data[4:8] != b"TFL3" or len(data) > LARGEST_BYTES:
        raise InvalidInput("this is no TFLite file; quantise the model again")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    except Exception as error:  # the reader checks nothing: any error means broken bytes
        raise InvalidInput("the TFLite file is cut off or damaged; quantise it again") from error
    if not model.subgraphs:
        raise InvalidInput("the TFLite file holds no graph; quantise the model again")
    return model


def _kind(code: Any) -> str:
    from ai_edge_litert import schema_py_generated as schema

    if code.customCode:
        return str(code.customCode.decode())
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return _names(schema.BuiltinOperator).get(number, f"operator {number}")


def _type(tensor: Any) -> str:
    from ai_edge_litert import schema_py_generated as schema

    return _names(schema.TensorType).get(tensor.type, f"type {tensor.type}")


def _names(enumeration: Any) -> dict[int, str]:
    return {code: name for name, code in vars(enumeration).items() if isinstance(code, int)}


def _name(tensor: Any) -> str:
    return str(tensor.name.decode()) if tensor.name else ""


def _list(values: Any) -> list[Any]:
    return [] if values is None else list(values)
