"""Open Inference Protocol v2 over gRPC, on loopback. It needs the extra ``grpc``.

A thin shell over the dataplane: it translates messages and errors.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, get_args

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from edge_agent.serving import declared_consumer, grpc_messages, raw_tensors
from edge_agent.serving.dataplane import EXTENSIONS, NAME, Dataplane
from edge_agent.serving.engine import Engine
from edge_agent.serving.http_bodies import timeout_of
from edge_agent.serving.tensors import (
    MAX_AXES,
    MAX_ID,
    MAX_INPUTS,
    OUTPUTS,
    Asked,
    Datatype,
    Described,
    Tensor,
)
from edge_core.errors import (
    DeadlineExceeded,
    InvalidConfiguration,
    InvalidInput,
    InvalidMessage,
    Overloaded,
    SerinusError,
    Unavailable,
    UnknownModel,
    quoted,
)

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
MAX_CALLS = 1024
"""Under way at once."""
STOP_SECONDS = 1.0
SLICE = "slice."
"""Begins the name of a parameter that holds one of the request's slices."""

TIMEOUT = "timeout"

_CONTENTS: dict[Datatype, str] = {
    "FP32": "fp32_contents",
    "INT64": "int64_contents",
    "BYTES": "bytes_contents",
}
_Call: TypeAlias = Callable[[Any, Any], Awaitable[Any]]


class _Calls:
    """The service's calls: a message in, a message out."""

    def __init__(self, engine: Engine, version: str) -> None:
        self._engine = engine
        self._plane = Dataplane(engine, version)

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802  # the protocol's
        self._engine.thread.check_alive()
        return _new("ServerLiveResponse", live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return _new("ServerReadyResponse", ready=self._plane.ready)

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        try:
            self._plane.release_of(request.name, request.version)
        except (UnknownModel, Unavailable):
            return _new("ModelReadyResponse", ready=False)
        return _new("ModelReadyResponse", ready=True)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        version = self._plane.version
        return _new("ServerMetadataResponse", name=NAME, version=version, extensions=EXTENSIONS)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        found = self._plane.metadata(request.name, request.version)
        return _new(
            "ModelMetadataResponse",
            name=found.name,
            versions=found.versions,
            platform=found.platform,
            inputs=_described(found.inputs),
            outputs=_described(found.outputs),
        )

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        metadata = dict(context.invocation_metadata() or ())
        consumer = declared_consumer.named(metadata.get(declared_consumer.GRPC_METADATA), "grpc")
        found = await self._plane.infer(
            request.model_name, request.model_version, asked(request), consumer
        )
        raw = bool(request.raw_input_contents)
        answer = _new(
            "ModelInferResponse",
            model_name=found.model,
            model_version=found.version,
            id=found.id,
            outputs=[_output(tensor, raw=raw) for tensor in found.outputs],
        )
        for name, value in found.parameters.items():
            answer.parameters[name].string_param = value
        if raw:
            answer.raw_output_contents.extend(map(raw_tensors.written, found.outputs))
        return answer


def _new(name: str, /, **fields: Any) -> Any:
    return grpc_messages.of(name)(**fields)


def _described(tensors: Sequence[Described]) -> list[dict[str, Any]]:
    return [tensor._asdict() for tensor in tensors]


def _output(tensor: Tensor, *, raw: bool) -> dict[str, Any]:
    """An output; its values stand beside it where the request's did."""
    plain = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
    if raw:
        return plain
    values = list(tensor.values)
    if tensor.datatype == "BYTES":
        values = [str(text).encode() for text in values]
    return plain | {"contents": {_CONTENTS[tensor.datatype]: values}}


def asked(request: Any) -> Asked:
    """The request; raise :class:`InvalidInput` or :class:`InvalidMessage`."""
    inputs, raw = request.inputs, request.raw_input_contents
    if not 1 <= len(inputs) <= MAX_INPUTS:
        raise InvalidMessage(f"{len(inputs)} inputs came; send 1 to {MAX_INPUTS}")
    if len(request.outputs) > len(OUTPUTS):
        raise InvalidMessage(f"{len(request.outputs)} outputs are wanted; there are {len(OUTPUTS)}")
    if len(request.id) > MAX_ID:
        raise InvalidMessage(f"an id has at most {MAX_ID} characters")
    if raw and len(raw) != len(inputs):
        raise InvalidMessage(f"{len(raw)} raw contents came for {len(inputs)} inputs")
    tensors = [_tensor(sent, raw[place] if raw else None) for place, sent in enumerate(inputs)]
    slices = {
        name[len(SLICE) :]: value.string_param
        for name, value in request.parameters.items()
        if name.startswith(SLICE)
    }
    timeout_us = 0
    if TIMEOUT in request.parameters:  # reading a map of protobuf would put it there
        timeout_us = timeout_of(request.parameters[TIMEOUT].int64_param)
    wanted = [output.name for output in request.outputs]
    return Asked(request.id, tensors, slices, wanted, timeout_us)


def _tensor(sent: Any, raw: bytes | None) -> Tensor:
    name, datatype, shape = sent.name, sent.datatype, list(sent.shape)
    if datatype not in get_args(Datatype):
        raise InvalidInput(
            f"input {name[:64]} has the datatype {datatype[:16]!r}; known are "
            f"{', '.join(get_args(Datatype))}"
        )
    if not 1 <= len(shape) <= MAX_AXES:
        raise InvalidInput(f"input {name[:64]} has {len(shape)} axes; 1 to {MAX_AXES} are known")
    if "shared_memory_region" in sent.parameters:
        raise InvalidInput(f"{name[:64]} lies in shared memory, which is not read; send its data")
    if raw is not None:
        if sent.HasField("contents"):
            raise InvalidInput(f"input {name[:64]} has both contents and raw contents")
        return raw_tensors.read(name, datatype, shape, raw)
    values = getattr(sent.contents, _CONTENTS[datatype])
    if datatype == "BYTES":
        try:
            return Tensor(name, datatype, shape, [text.decode() for text in values])
        except UnicodeDecodeError as error:
            raise InvalidInput(f"input {name[:64]} has a text that is not UTF-8") from error
    kind = np.float32 if datatype == "FP32" else np.int64
    return Tensor(name, datatype, shape, np.array(values, kind))


def _handler(engine: Engine, name: str, call: _Call) -> Any:
    """Parse, call, and turn our errors into status codes; every other error is a bug."""
    message = grpc_messages.of(f"{name}Request")

    async def handle(data: bytes, context: Any) -> bytes:
        try:
            try:
                request = message.FromString(data)
            except DecodeError as error:
                raise InvalidMessage(f"not a {name}Request: {quoted(error)}") from error
            answer: bytes = (await call(request, context)).SerializeToString()
            return answer
        except SerinusError as error:
            engine.refusals.count(error, "grpc")
            await context.abort(_code(error), str(error))
            raise AssertionError("abort always raises") from error

    return grpc.unary_unary_rpc_method_handler(handle)


def _code(error: SerinusError) -> Any:
    match error:
        case DeadlineExceeded():
            return grpc.StatusCode.DEADLINE_EXCEEDED
        case UnknownModel():
            return grpc.StatusCode.NOT_FOUND
        case Overloaded():
            return grpc.StatusCode.RESOURCE_EXHAUSTED
        case Unavailable():
            return grpc.StatusCode.UNAVAILABLE
        case _:
            return grpc.StatusCode.INVALID_ARGUMENT


def listen(port: int, engine: Engine, version: str) -> Any:
    """Take a port of 127.0.0.1 for a server that :func:`serve` starts.

    Raises:
        InvalidConfiguration: the port is taken.
    """
    calls = _Calls(engine, version)
    names = [name for name in vars(_Calls) if not name.startswith("_")]
    handlers = {name: _handler(engine, name, getattr(calls, name)) for name in names}
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),  # else two agents would share a port unseen
        ],
        maximum_concurrent_rpcs=MAX_CALLS,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(grpc_messages.SERVICE, handlers),)
    )
    try:
        server.add_insecure_port(f"127.0.0.1:{port}")
    except RuntimeError as error:
        raise InvalidConfiguration(
            f"port {port} on 127.0.0.1 cannot be used; name another [serving] grpc_port"
        ) from error
    return server


async def serve(server: Any) -> None:
    """Serve until cancelled; calls under way get a moment to end."""
    await server.start()
    try:
        await server.wait_for_termination()
    finally:
        await server.stop(STOP_SECONDS)
