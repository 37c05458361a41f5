"""Tensors of the Open Inference Protocol v2, and events beside them.

Source: the Open Inference Protocol (KServe v2), REST. Features of windows have one input
``samples`` FP32 [batch, samples, inputs]; those of requests have one for each field, of shape [n].
"""

from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from edge_agent.inference.session import Float32
from edge_agent.serving.fields import Column
from edge_agent.serving.predictions import Prediction
from edge_agent.serving.release import LoadedRelease
from edge_core.errors import InvalidInput, InvalidMessage, quoted
from edge_core.features.definition import FeatureDefinition
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.requests import Category, FieldType, Number, Time

DataType = Literal["FP32", "INT64", "BYTES"]
MAX_INPUTS = 64
"""As many as a request has fields."""


class _Tensor(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    shape: Annotated[list[int], msgspec.Meta(min_length=1, max_length=3)]
    datatype: DataType
    data: list[Any]


class Inference(msgspec.Struct, frozen=True, kw_only=True):
    """Body of an inference request."""

    inputs: Annotated[list[_Tensor], msgspec.Meta(min_length=1, max_length=MAX_INPUTS)]
    id: str | None = None
    parameters: dict[str, Any] = {}

    @property
    def slices(self) -> dict[str, str]:
        """The request's slices; raise :class:`InvalidInput` where they are none."""
        found = self.parameters.get("slices", {})
        if not isinstance(found, dict):
            raise InvalidInput("parameters.slices has to be an object of names and values")
        return {str(key): str(value) for key, value in found.items()}


class Events(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of a request to remember events: an extension of the protocol."""

    times_us: list[int]
    sequence: list[int]
    fields: dict[str, list[str | int | float | None]]
    arrived_us: list[int] | None = None


_inference = msgspec.json.Decoder(Inference)
_events = msgspec.json.Decoder(Events)


def inference(body: bytes) -> Inference:
    """Parse; raise :class:`InvalidMessage`."""
    try:
        return _inference.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(f"not an inference request: {quoted(error)}") from error


def events(body: bytes) -> Events:
    """Parse; raise :class:`InvalidMessage`."""
    try:
        return _events.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(f"not a request to remember events: {quoted(error)}") from error


def described(definition: FeatureDefinition) -> list[dict[str, object]]:
    """Name, datatype and shape of each input."""
    if isinstance(definition, RequestDefinition):
        fields = definition.request.fields
        return [{"name": f.name, "datatype": _datatype(f), "shape": [-1]} for f in fields]
    return [{"name": "samples", "datatype": "FP32", "shape": [-1, *definition.raw_shape]}]


def samples_of(asked: Inference) -> Float32:
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
            return np.asarray(tensor.data, dtype=np.float32).reshape(tensor.shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInput(f"data do not fill the shape {tensor.shape}: {error}") from error


def fields_of(definition: RequestDefinition, asked: Inference) -> dict[str, Column]:
    """Columns of a request by field; raise :class:`InvalidInput`."""
    known = {field.name: field for field in definition.request.fields}
    found: dict[str, Column] = {}
    for tensor in asked.inputs:
        field = known.get(tensor.name)
        if field is None:
            raise InvalidInput(
                f"unknown input {tensor.name[:64]!r}; the inputs are {', '.join(known)}"
            )
        if tensor.name in found:
            raise InvalidInput(f"input {tensor.name} comes twice")
        if tensor.datatype != _datatype(field) or tensor.shape != [len(tensor.data)]:
            raise InvalidInput(
                f"input {tensor.name} is {_datatype(field)} [n] with n values, not "
                f"{tensor.datatype} {tensor.shape} with {len(tensor.data)}"
            )
        try:
            found[tensor.name] = msgspec.convert(tensor.data, list[str | int | float | None])
        except msgspec.ValidationError as error:
            raise InvalidInput(f"input {tensor.name} is no flat list of values") from error
    return found


def answered(
    release: LoadedRelease, request_id: str | None, answers: list[Prediction]
) -> dict[str, object]:
    """The response to an inference request."""
    first = answers[0]
    scores = [score for answer in answers for score in answer.scores]
    times = [answer.last_us for answer in answers]
    return {
        "model_name": first.model,
        "model_version": first.version,
        **({"id": request_id} if request_id else {}),
        "parameters": {
            "release": first.digest,
            "target": first.target,
            **_served_by(answers),
            "prediction_ids": [answer.id for answer in answers],
            **({"times_us": times} if any(times) else {}),
        },
        "outputs": [
            {
                "name": "scores",
                "datatype": "FP32",
                "shape": [len(answers), len(release.classes)],
                "data": scores,
            },
            {
                "name": "label",
                "datatype": "BYTES",
                "shape": [len(answers)],
                "data": [answer.label for answer in answers],
            },
        ],
    }


def _served_by(answers: list[Prediction]) -> dict[str, object]:
    """Who answered; by row where not all rows were answered by the same one."""
    by, causes = [a.served_by for a in answers], [a.cause for a in answers]
    found: dict[str, object] = {"served_by": by[0] if len(set(by)) == 1 else "mixed"}
    if found["served_by"] == "mixed":
        found["served_by_rows"] = by
    if any(causes):
        found["causes"] = causes
    return found


def _datatype(field: FieldType) -> DataType:
    match field:
        case Number():
            return "FP32"
        case Time():
            return "INT64"
        case Category():
            return "BYTES"
