"""Open Inference Protocol v2 over HTTP, on loopback, for everything that speaks it already.

Source: the Open Inference Protocol (KServe v2), REST. The input ``samples`` is FP32
[batch, samples, inputs]; outputs are ``scores`` FP32 and ``label`` BYTES.
"""

import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_agent.serving.engine import Engine
from edge_agent.serving.predictions import Prediction
from edge_agent.serving.release import LoadedRelease
from edge_core.errors import (
    InvalidConfiguration,
    InvalidInput,
    InvalidMessage,
    Overloaded,
    SerinusError,
    Unavailable,
)

MAX_BODY_BYTES = 8 * 1024 * 1024
Handler = Callable[[Request], Awaitable[Response]]


class _Tensor(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    shape: Annotated[list[int], msgspec.Meta(min_length=3, max_length=3)]
    datatype: Literal["FP32"]
    data: list[Any]


class _Inference(msgspec.Struct, frozen=True, kw_only=True):
    inputs: Annotated[list[_Tensor], msgspec.Meta(min_length=1, max_length=1)]
    id: str | None = None
    parameters: dict[str, Any] = {}


_decoder = msgspec.json.Decoder(_Inference)


def create_app(engine: Engine, version: str) -> Starlette:
    """Build the HTTP application over the engine."""
    routes = _Routes(engine, version)
    return Starlette(
        routes=[
            Route("/v2", _translated(routes.server)),
            Route("/v2/health/live", _translated(routes.live)),
            Route("/v2/health/ready", _translated(routes.ready)),
            Route("/v2/models/{model}", _translated(routes.model)),
            Route("/v2/models/{model}/ready", _translated(routes.model_ready)),
            Route("/v2/models/{model}/infer", _translated(routes.infer), methods=["POST"]),
        ]
    )


class _Routes:
    """Translate only: parse, call the engine, render."""

    def __init__(self, engine: Engine, version: str) -> None:
        self._engine = engine
        self._version = version

    async def server(self, _: Request) -> Response:
        return _json({"name": "serinus", "version": self._version, "extensions": []})

    async def live(self, _: Request) -> Response:
        return _json({"live": True})

    async def ready(self, _: Request) -> Response:
        ready = self._engine.active is not None
        return _json({"ready": ready}, 200 if ready else 503)

    async def model_ready(self, request: Request) -> Response:
        release = self._release(request)
        return _json({"name": release.ref.model, "ready": True})

    async def model(self, request: Request) -> Response:
        release = self._release(request)
        definition = release.definition
        shape = [-1, definition.window.samples, len(definition.inputs)]
        return _json(
            {
                "name": release.ref.model,
                "versions": [release.ref.version],
                "platform": release.session.runtime,
                "inputs": [{"name": "samples", "datatype": "FP32", "shape": shape}],
                "outputs": [
                    {"name": "scores", "datatype": "FP32", "shape": [-1, len(release.classes)]},
                    {"name": "label", "datatype": "BYTES", "shape": [-1]},
                ],
            }
        )

    async def infer(self, request: Request) -> Response:
        release = self._release(request)
        inference = _parse(await _body(request))
        tensor = inference.inputs[0]
        if tensor.name != "samples":
            raise InvalidInput(f"unknown input {tensor.name[:64]!r}; the input is 'samples'")
        if min(tensor.shape) < 1:
            raise InvalidInput(f"shape {tensor.shape} holds no rows")
        try:
            with np.errstate(over="ignore"):  # becomes infinity, which the engine refuses
                samples = np.asarray(tensor.data, dtype=np.float32).reshape(tensor.shape)
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidInput(f"data do not fill the shape {tensor.shape}: {error}") from error
        slices = inference.parameters.get("slices", {})
        if not isinstance(slices, dict):
            raise InvalidInput("parameters.slices has to be an object of names and values")
        answers = await self._engine.predict(samples, {str(k): str(v) for k, v in slices.items()})
        return _json(_rendered(release, inference.id, answers))

    def _release(self, request: Request) -> LoadedRelease:
        release = self._engine.active
        if release is None:
            raise Unavailable("no release is active on this device yet; wait for its rollout")
        if request.path_params["model"] != release.ref.model:
            raise _NotFound(f"this device serves {release.ref.model}, no other model")
        return release


class _NotFound(SerinusError):
    """The model's name is not the one served here."""


class _TooLarge(InvalidMessage):
    """The body has more bytes than are read."""


def _rendered(
    release: LoadedRelease, request_id: str | None, answers: list[Prediction]
) -> dict[str, object]:
    first = answers[0]
    scores = [score for answer in answers for score in answer.scores]
    return {
        "model_name": first.model,
        "model_version": first.version,
        **({"id": request_id} if request_id else {}),
        "parameters": {
            "release": first.digest,
            "target": first.target,
            "served_by": first.served_by,
            "prediction_ids": [answer.id for answer in answers],
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


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _TooLarge(f"body of more than {MAX_BODY_BYTES} bytes; send fewer rows")
    return bytes(body)


def _parse(body: bytes) -> _Inference:
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(f"not an inference request: {error}") from error


def _translated(handler: Handler) -> Handler:
    """Turn our errors into status codes; every other error is a bug and stays one."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except SerinusError as error:
            return _json({"error": str(error)}, _status(error))

    return handle


def _status(error: SerinusError) -> int:
    match error:
        case _TooLarge():
            return 413
        case _NotFound():
            return 404
        case Overloaded():
            return 429
        case Unavailable():
            return 503
        case _:
            return 400


def _json(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


class _Server(uvicorn.Server):
    """uvicorn inside our own event loop: signals belong to the agent."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(port: int) -> socket.socket:
    """Take a port of 127.0.0.1.

    Raises:
        InvalidConfiguration: the port is taken.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise InvalidConfiguration(
            f"port {port} on 127.0.0.1 cannot be used ({error.strerror}); name another "
            "[serving] rest_port"
        ) from error
    return listener


async def serve(app: Starlette, listener: socket.socket) -> None:
    """Serve until cancelled; the listener is closed then."""
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
    server = _Server(config)
    try:
        await server.serve(sockets=[listener])
    finally:
        server.should_exit = True
        listener.close()
