"""Names inside a TFLite file: short, unique, and telling which torch module a tensor came from.

litert-torch names tensors after the classes on the way to each module. That is long (on a
microcontroller names take flash), depends on where the classes were defined, and is lost where
an operator is an output.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from converters.capturing import ROOT
from converters.floating import FloatModel
from converters.refusal import StageFailed

SIGNATURE = b"serving_default"


def rename(
    data: bytes, model: FloatModel, locations: Mapping[str, str], ends: Sequence[str]
) -> tuple[bytes, dict[str, str]]:
    """Rename every tensor and signature entry; give bytes and origins.

    Args:
        data: what litert-torch made.
        model: whose inputs and outputs give the signature's names, in order.
        locations: what litert-torch writes into names -> torch module path.
        ends: module path of each output's maker; litert-torch drops those names.

    Raises:
        StageFailed: an operator that the runtime has no kernel for; names it and its module.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    file = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    signature = file.signatureDefs[0]
    _check_ends(signature, model)
    graph = file.subgraphs[0]
    names = _Names(len(graph.tensors))
    for specs, entries in ((model.inputs, signature.inputs), (model.outputs, signature.outputs)):
        for spec, entry in zip(specs, entries, strict=True):
            entry.name = spec.name.encode()
            names.give(entry.tensorIndex, spec.name)
    outputs = dict(zip((entry.tensorIndex for entry in signature.outputs), ends, strict=True))
    origins: dict[str, str] = {}
    for step in graph.operators:
        kind = _kind(file, step)
        path = _origin(graph, step, locations) or outputs.get(step.outputs[0], ROOT)
        if kind.startswith(("CUSTOM", "STABLEHLO", "Flex")):
            raise StageFailed(
                f"operator {kind} in module {path} has no kernel in LiteRT; replace it, or "
                "compute it outside of the model"
            )
        for place in step.outputs:
            names.give(place, f"{path}/{kind}")
        origins[names.of(step.outputs[0])] = path
        for order, place in enumerate(step.inputs):
            if place >= 0:
                names.give(place, f"{path}/{kind}:{order}")
    for place, tensor in enumerate(graph.tensors):
        tensor.name = names.of(place).encode()
    file.description = b"serinus"
    return bytes(flatbuffer_utils.convert_object_to_bytearray(file)), origins


class _Names:
    """One name for each tensor; the first that is given stays."""

    def __init__(self, tensors: int) -> None:
        self._names: list[str | None] = [None] * tensors
        self._taken: dict[str, int] = {}

    def give(self, place: int, wanted: str) -> None:
        """Name the tensor at ``place``, numbered where another has the name."""
        if self._names[place] is not None:
            return
        count = self._taken.get(wanted, 0)
        self._taken[wanted] = count + 1
        name = f"{wanted}#{count + 1}" if count else wanted
        self._names[place] = name

    def of(self, place: int) -> str:
        """The tensor's name; one that nothing uses is called by its place."""
        return self._names[place] or f"unused/{place}"


def _check_ends(signature: Any, model: FloatModel) -> None:
    counts = (len(signature.inputs), len(signature.outputs))
    wanted = (len(model.inputs), len(model.outputs))
    if signature.signatureKey != SIGNATURE or counts != wanted:
        raise StageFailed(
            f"TFLite export made {counts[0]} inputs and {counts[1]} outputs of "
            f"{wanted[0]} and {wanted[1]}: is one of them unused, or two the same?"
        )


def _kind(file: Any, step: Any) -> str:
    from ai_edge_litert import schema_py_generated as schema

    code = file.operatorCodes[step.opcodeIndex]
    if code.customCode:
        return f"CUSTOM {code.customCode.decode()}"
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    names: dict[int, str] = {
        v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)
    }
    return names.get(number, str(number))


def _origin(graph: Any, step: Any, locations: Mapping[str, str]) -> str:
    """The module path: from the weights' names where there are any, else from the output's.

    Empty where neither tells. A fused operator lists its parts, the one that computes last.
    """
    constants = [
        place for place in step.inputs[1:] if place >= 0 and graph.tensors[place].buffer > 0
    ]
    for place in (*constants, *step.outputs):
        for part in reversed(graph.tensors[place].name.decode().split(";")):
            if part in locations:
                return locations[part]
    return ""
