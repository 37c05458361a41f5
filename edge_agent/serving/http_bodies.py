"""Bodies of the Open Inference Protocol over HTTP: JSON, and raw tensors behind it.

With the binary tensor data extension a body is JSON of ``Inference-Header-Content-Length`` bytes,
then the raw bytes of each input that has a ``binary_data_size``, in order; answers likewise.

Source: the Open Inference Protocol (KServe v2), REST, and its binary tensor data extension.
"""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from edge_agent.serving import raw_tensors
from edge_agent.serving.predictions import MAX_ID_LENGTH
from edge_agent.serving.tensors import (
    MAX_AXES,
    MAX_ID,
    MAX_INPUTS,
    MAX_TIMEOUT_US,
    OUTPUTS,
    Asked,
    Datatype,
    Tensor,
)
from edge_core.errors import InvalidInput, InvalidMessage, quoted

Size = Annotated[int, msgspec.Meta(ge=0)]


class _TensorParameters(msgspec.Struct, frozen=True, kw_only=True):
    binary_data_size: Size | None = None
    shared_memory_region: str | None = None


class _Input(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    shape: Annotated[list[int], msgspec.Meta(min_length=1, max_length=MAX_AXES)]
    datatype: Datatype
    parameters: _TensorParameters | None = None
    data: list[Any] | None = None


class _OutputParameters(msgspec.Struct, frozen=True, kw_only=True):
    binary_data: bool | None = None
    shared_memory_region: str | None = None
    classification: int | None = None


class _Wanted(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    parameters: _OutputParameters | None = None


class _Inference(msgspec.Struct, frozen=True, kw_only=True):
    inputs: Annotated[list[_Input], msgspec.Meta(min_length=1, max_length=MAX_INPUTS)]
    id: Annotated[str, msgspec.Meta(max_length=MAX_ID)] | None = None
    parameters: dict[str, Any] = {}
    outputs: Annotated[list[_Wanted], msgspec.Meta(max_length=len(OUTPUTS))] = []


class Events(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of a request to remember events: an extension of the protocol."""

    times_us: list[int]
    sequence: list[int]
    fields: dict[str, list[str | int | float | None]]
    arrived_us: list[int] | None = None


class Feedback(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of a request with the true class of an earlier prediction: an extension."""

    prediction_id: Annotated[str, msgspec.Meta(max_length=MAX_ID_LENGTH)]
    label: str


class Read(NamedTuple):
    """An inference request, and how its answer has to look."""

    asked: Asked
    binary: frozenset[str]
    """Outputs that are wanted as raw bytes."""
    parameters: dict[str, Any]
    """Of the request as a whole."""


class _Output(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] | None = None
    data: list[Any] | None = None


class _Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    model_name: str
    model_version: str
    id: str = ""
    parameters: dict[str, str]
    outputs: list[_Output]


_inference = msgspec.json.Decoder(_Inference)
_events = msgspec.json.Decoder(Events)
_feedback = msgspec.json.Decoder(Feedback)
_encode = msgspec.json.Encoder().encode
_ALL = frozenset(OUTPUTS)
_NONE: frozenset[str] = frozenset()


def inference(body: bytes, header_length: int | None = None) -> Read:
    """Parse an inference request.

    Args:
        body: all of it.
        header_length: bytes of its JSON; none for all.

    Raises:
        InvalidMessage: it is not one, or sizes do not add up.
        InvalidInput: raw bytes are no values of their input's type.
    """
    if header_length is not None and not 0 <= header_length <= len(body):
        raise InvalidMessage(
            f"the header claims {header_length} bytes of JSON; the body has {len(body)}"
        )
    try:
        sent = _inference.decode(body if header_length is None else body[:header_length])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(f"not an inference request: {quoted(error)}") from error
    raw = b"" if header_length is None else body[header_length:]
    asked = Asked(
        sent.id or "",
        _tensors(sent.inputs, raw),
        _slices(sent.parameters),
        [wanted.name for wanted in sent.outputs],
        timeout_of(sent.parameters.get("timeout", 0)),
    )
    return Read(asked, _binary(sent), sent.parameters)


def events(body: bytes) -> Events:
    """Parse; raise :class:`InvalidMessage`."""
    try:
        return _events.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(f"not a request to remember events: {quoted(error)}") from error


def feedback(body: bytes) -> Feedback:
    """Parse; raise :class:`InvalidMessage`."""
    try:
        return _feedback.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(f"not feedback: {quoted(error)}") from error


def answer(
    *,
    model: str,
    version: str,
    request_id: str,
    parameters: dict[str, str],
    outputs: Sequence[Tensor],
    binary: frozenset[str],
) -> tuple[bytes, int | None]:
    """The body of an answer, and how many of its bytes are JSON; none for all."""
    raw = [raw_tensors.written(tensor) if tensor.name in binary else None for tensor in outputs]
    header = _encode(
        _Answer(
            model_name=model,
            model_version=version,
            id=request_id,
            parameters=parameters,
            outputs=[
                _Output(name=name, datatype=datatype, shape=shape, data=list(values))
                if data is None
                else _Output(
                    name=name,
                    datatype=datatype,
                    shape=shape,
                    parameters={"binary_data_size": len(data)},
                )
                for (name, datatype, shape, values), data in zip(outputs, raw, strict=True)
            ],
        )
    )
    if not binary:
        return header, None
    return b"".join([header, *(data for data in raw if data is not None)]), len(header)


def _tensors(inputs: list[_Input], raw: bytes) -> list[Tensor]:
    found = []
    place = 0
    for sent in inputs:
        size = None
        if sent.parameters is not None:
            size = sent.parameters.binary_data_size
            if sent.parameters.shared_memory_region is not None:
                raise _no_shared_memory(sent.name)
        if (size is None) == (sent.data is None):
            raise InvalidInput(f"input {sent.name[:64]} needs either data or a binary_data_size")
        if size is None:
            found.append(Tensor(sent.name, sent.datatype, sent.shape, sent.data or []))
            continue
        if place + size > len(raw):
            raise InvalidMessage(
                f"input {sent.name[:64]} claims {size} bytes; {len(raw) - place} are left"
            )
        data = raw[place : place + size]
        found.append(raw_tensors.read(sent.name, sent.datatype, sent.shape, data))
        place += size
    if place != len(raw):
        raise InvalidMessage(f"{len(raw) - place} bytes behind the JSON belong to no input")
    return found


def _binary(sent: _Inference) -> frozenset[str]:
    """Outputs wanted as raw bytes: each as it says itself, else as the request says."""
    plain = bool(sent.parameters.get("binary_data_output", False))
    if not sent.outputs:
        return _ALL if plain else _NONE
    found = set()
    for wanted in sent.outputs:
        parameters = wanted.parameters or _OutputParameters()
        if parameters.shared_memory_region is not None:
            raise _no_shared_memory(wanted.name)
        if parameters.classification:
            raise InvalidInput("classification of outputs is not offered; ask for label and scores")
        if plain if parameters.binary_data is None else parameters.binary_data:
            found.add(wanted.name)
    return frozenset(found)


def _slices(parameters: dict[str, Any]) -> dict[str, str]:
    found = parameters.get("slices")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidInput("parameters.slices has to be an object of names and values")
    return {str(key): str(value) for key, value in found.items()}


def timeout_of(value: object) -> int:
    """Microseconds of the parameter ``timeout``; raise :class:`InvalidInput`."""
    if type(value) is int and 0 <= value <= MAX_TIMEOUT_US:
        return value
    raise InvalidInput("parameters.timeout is a whole number of microseconds")


def _no_shared_memory(name: str) -> InvalidInput:
    return InvalidInput(f"{name[:64]} lies in shared memory, which is not read; send its data")
