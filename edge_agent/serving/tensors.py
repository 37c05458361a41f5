"""Tensors of the Open Inference Protocol v2, whatever carries them.

Features of windows have one input ``samples`` FP32 [batch, samples, inputs]; those of requests have
one for each field, of shape [n]. Outputs are the same for both; see :data:`OUTPUTS`.

Source: the Open Inference Protocol (KServe v2), "required API".
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.inference.session import Float32
from edge_agent.serving.fields import Column
from edge_agent.serving.predictions import Prediction
from edge_agent.serving.release import LoadedRelease
from edge_core.errors import InvalidInput
from edge_core.features.columns import Given
from edge_core.features.definition import FeatureDefinition
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.requests import Category, FieldType, Number, Time

Datatype = Literal["FP32", "INT64", "BYTES"]
MAX_INPUTS = 64
"""As many as a request has fields."""
MAX_AXES = 3
MAX_TIMEOUT_US = 2**53
MAX_ID = 256
"""Characters of a request's id, which comes back with the answer."""


class Tensor(NamedTuple):
    """Values of one input or output."""

    name: str
    datatype: Datatype
    shape: list[int]
    values: npt.NDArray[Any] | list[Any]
    """Row-major; those of JSON may be nested."""


class Described(NamedTuple):
    """An input or output as the model's metadata tell it."""

    name: str
    datatype: Datatype
    shape: list[int]
    """-1 for an axis of any length."""


class Asked(NamedTuple):
    """An inference request, whatever carried it."""

    id: str
    inputs: Sequence[Tensor]
    slices: dict[str, str]
    outputs: Sequence[str]
    """Names of the wanted ones; empty for all."""
    timeout_us: int = 0
    """After which an answer is not worth having; 0 for never."""


class _Output(NamedTuple):
    datatype: Datatype
    of: Callable[[list[Prediction]], list[Any]]


OUTPUTS: dict[str, _Output] = {
    "scores": _Output("FP32", lambda found: [score for one in found for score in one.scores]),
    "label": _Output("BYTES", lambda found: [one.label for one in found]),
    "prediction_id": _Output("BYTES", lambda found: [one.id for one in found]),
    "served_by": _Output("BYTES", lambda found: [one.served_by for one in found]),
    "time_us": _Output("INT64", lambda found: [one.last_us for one in found]),
}
"""``scores`` are the probabilities [n, classes]; the others have one value a row [n].

``time_us`` is the moment of which a request was answered; windows have none here.
"""
_OF_WINDOWS = [name for name in OUTPUTS if name != "time_us"]


def inputs_of(definition: FeatureDefinition) -> list[Described]:
    """What a release takes."""
    if isinstance(definition, RequestDefinition):
        fields = definition.request.fields
        return [Described(field.name, _datatype(field), [-1]) for field in fields]
    return [Described("samples", "FP32", [-1, *definition.raw_shape])]


def outputs_of(release: LoadedRelease) -> list[Described]:
    """What a release answers."""
    return [
        Described(
            name,
            OUTPUTS[name].datatype,
            [-1, len(release.classes)] if name == "scores" else [-1],
        )
        for name in _names(release)
    ]


def samples_of(asked: Asked) -> Float32:
    """Windows, float32 [batch, samples, inputs]; raise :class:`InvalidInput`."""
    tensor = asked.inputs[0]
    if tensor.name != "samples" or len(asked.inputs) != 1:
        raise InvalidInput(f"unknown input {asked.inputs[-1].name[:64]!r}; the input is 'samples'")
    if tensor.datatype != "FP32" or len(tensor.shape) != 3:
        raise InvalidInput("samples are FP32 [batch, samples, inputs]")
    if min(tensor.shape) < 1:
        raise InvalidInput(f"shape {tensor.shape} holds no rows")
    try:
        with np.errstate(over="ignore"):  # becomes infinity, which the engine refuses
            values = np.asarray(tensor.values, dtype=np.float32)
            # numpy multiplies the axes in 64 bits, so a shape that overflows them may seem filled
            if values.size != math.prod(tensor.shape):
                raise ValueError(f"{values.size} values came")
            return values.reshape(tensor.shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInput(f"data do not fill the shape {tensor.shape}: {error}") from error


def fields_of(definition: RequestDefinition, asked: Asked) -> Given:
    """Columns of a request by field; raise :class:`InvalidInput`."""
    known = {field.name: field for field in definition.request.fields}
    found: dict[str, Any] = {}
    for tensor in asked.inputs:
        field = known.get(tensor.name)
        if field is None:
            raise InvalidInput(
                f"unknown input {tensor.name[:64]!r}; the inputs are {', '.join(known)}"
            )
        if tensor.name in found:
            raise InvalidInput(f"input {tensor.name} comes twice")
        if tensor.datatype != _datatype(field) or tensor.shape != [len(tensor.values)]:
            raise InvalidInput(
                f"input {tensor.name} is {_datatype(field)} [n] with n values, not "
                f"{tensor.datatype} {tensor.shape} with {len(tensor.values)}"
            )
        found[tensor.name] = _column(tensor)
    return found


def answered(
    release: LoadedRelease, wanted: Sequence[str], found: list[Prediction]
) -> list[Tensor]:
    """The outputs of an answer, in the order in which they are wanted; all where none is named."""
    return [
        Tensor(
            name,
            OUTPUTS[name].datatype,
            [len(found), len(release.classes)] if name == "scores" else [len(found)],
            OUTPUTS[name].of(found),
        )
        for name in wanted or _names(release)
    ]


def check_outputs(release: LoadedRelease, wanted: Sequence[str]) -> None:
    """Refuse outputs that the release has not, before anything is computed.

    Raises:
        InvalidInput: one is unknown, or named twice.
    """
    known = _names(release)
    for name in wanted:
        if name not in known:
            raise InvalidInput(f"unknown output {name[:64]!r}; the outputs are {', '.join(known)}")
    if len(set(wanted)) < len(wanted):
        raise InvalidInput("an output is asked for twice")


def _names(release: LoadedRelease) -> Sequence[str]:
    return list(OUTPUTS) if isinstance(release.definition, RequestDefinition) else _OF_WINDOWS


def _column(tensor: Tensor) -> npt.NDArray[Any] | Column:
    if isinstance(tensor.values, np.ndarray):
        return tensor.values
    try:
        return msgspec.convert(tensor.values, list[str | int | float | None])
    except msgspec.ValidationError as error:
        raise InvalidInput(f"input {tensor.name} is no flat list of values") from error


def _datatype(field: FieldType) -> Datatype:
    match field:
        case Number():
            return "FP32"
        case Time():
            return "INT64"
        case Category():
            return "BYTES"
