"""How the operators of a TFLite file hang together, and which of them carry weights."""

from typing import Any, NamedTuple

from converters.targets.tflite_graph import PRODUCTS


class Step(NamedTuple):
    """One operator of the main graph."""

    kind: str
    inputs: tuple[int, ...]
    """Tensor numbers; constants included, absent ones left out."""
    outputs: tuple[int, ...]
    name: str
    """Of the first output."""
    weighted: bool
    """Whether it multiplies with a constant."""


def steps(data: bytes) -> list[Step]:
    """The operators in order."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flatbuffer

    kinds = {code: name for name, code in vars(BuiltinOperator).items() if isinstance(code, int)}
    model = flatbuffer.read_model(bytearray(data))
    graph = model.subgraphs[0]

    def constant(place: int) -> bool:
        held = model.buffers[graph.tensors[place].buffer].data
        return held is not None and len(held) > 0

    def step(operator: Any) -> Step:
        code = model.operatorCodes[operator.opcodeIndex]
        custom = code.customCode
        kind = custom.decode() if custom else kinds[code.builtinCode]
        inputs = tuple(int(place) for place in operator.inputs if place >= 0)
        outputs = tuple(int(place) for place in operator.outputs)
        return Step(
            kind=kind,
            inputs=inputs,
            outputs=outputs,
            name=graph.tensors[outputs[0]].name.decode(),
            weighted=kind in PRODUCTS and any(constant(place) for place in inputs[1:2]),
        )

    return [step(operator) for operator in graph.operators]


def moving_ranks(data: bytes) -> dict[str, int]:
    """Name -> number of dimensions of every tensor that is no constant."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flatbuffer

    model = flatbuffer.read_model(bytearray(data))
    found = {}
    for tensor in model.subgraphs[0].tensors:
        held = model.buffers[tensor.buffer].data
        if (held is None or not len(held)) and tensor.name:
            found[tensor.name.decode()] = 0 if tensor.shape is None else len(tensor.shape)
    return found


def after_products(found: list[Step]) -> list[Step]:
    """Products and what follows them; what stands in front only prepares the input."""
    reached: set[int] = set()
    kept = []
    for step in found:
        if step.kind in PRODUCTS or reached.intersection(step.inputs):
            reached.update(step.outputs)
            kept.append(step)
    return kept
