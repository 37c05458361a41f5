"""Which tensor of a model file is which of the inputs and outputs that people named."""

import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from converters.model_file import ModelFile
from converters.refusal import StageFailed
from converters.targets import tflite_graph
from converters.tensors import TensorSpec
from edge_core.errors import InvalidInput

_NUMBER = re.compile(r"(\d+)(?:_|$)")


class End(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output of the file."""

    place: int
    """Among the file's own inputs or outputs."""
    details: dict[str, Any]
    """``dtype`` and ``quantization`` (scale, zero point), as LiteRT's interpreter tells them."""


def inputs(model: ModelFile) -> list[End]:
    """The file's inputs in the order of ``model.inputs``.

    Raises:
        InvalidInput: the file is damaged.
        StageFailed: number, names or sizes do not fit.
    """
    if model.format == "onnx":
        return _onnx(model, "input", model.inputs)
    return _tflite(tflite_graph.ends(model.data).inputs, model.inputs, "inputs")


def outputs(model: ModelFile) -> list[End]:
    """The same for outputs."""
    if model.format == "onnx":
        return _onnx(model, "output", model.outputs)
    return _tflite(tflite_graph.ends(model.data).outputs, model.outputs, "outputs")


def _onnx(model: ModelFile, kind: str, specs: Sequence[TensorSpec]) -> list[End]:
    """By name: ONNX keeps them."""
    import onnx

    try:
        graph = onnx.load_model_from_string(model.data).graph
    except Exception as error:  # protobuf's own; which one depends on its version
        raise InvalidInput("the ONNX file is cut off or damaged; quantise it again") from error
    fixed = {tensor.name for tensor in graph.initializer}
    names = [tensor.name for tensor in getattr(graph, kind) if tensor.name not in fixed]
    if sorted(names) != sorted(spec.name for spec in specs):
        raise _differ(f"{kind}s", names, specs)
    details = {"dtype": np.float32, "quantization": (0.0, 0)}
    return [End(place=names.index(spec.name), details=details) for spec in specs]


def _tflite(
    tensors: Sequence[tflite_graph.End], specs: Sequence[TensorSpec], what: str
) -> list[End]:
    """By the signature's names; where the exporter numbered them, by these numbers."""
    names = [tensor.name for tensor in tensors]
    if len(names) != len(specs):
        raise _differ(what, names, specs)
    if {spec.name for spec in specs} == set(names):
        order = [names.index(spec.name) for spec in specs]
    else:
        order = sorted(range(len(names)), key=lambda place: _number(names[place], place))
    for place, spec in zip(order, specs, strict=True):
        if math.prod(tensors[place].shape[1:]) != math.prod(spec.shape):
            raise _differ(what, names, specs)
    return [
        End(
            place=place,
            details={
                "dtype": tensors[place].dtype,
                "quantization": (tensors[place].scale, tensors[place].zero_point),
            },
        )
        for place in order
    ]


def _number(name: str, place: int) -> tuple[int, int]:
    """``args_0`` -> 0; names without a number keep their places."""
    found = _NUMBER.search(name)
    return (int(found.group(1)) if found else place, place)


def _differ(what: str, names: Sequence[str], specs: Sequence[TensorSpec]) -> StageFailed:
    wanted = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in specs)
    return StageFailed(
        f"the file's {what} are {', '.join(names) or 'none'}; the model has {wanted}: "
        "export it again"
    )
