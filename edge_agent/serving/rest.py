"""Open Inference Protocol v2 over HTTP, on loopback, for everything that speaks it already.

Outputs are ``scores`` FP32 and ``label`` BYTES. Events of models that answer requests come in by an
extension, which stands in ``docs/socket-protocol.md``.
"""

import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_agent.serving import tensors
from edge_agent.serving.engine import Engine
from edge_agent.serving.release import LoadedRelease
from edge_core.errors import (
    InvalidConfiguration,
    InvalidMessage,
    Overloaded,
    SerinusError,
    Unavailable,
)
from edge_core.features.request_definition import RequestDefinition

MAX_BODY_BYTES = 8 * 1024 * 1024
Handler = Callable[[Request], Awaitable[Response]]


def create_app(engine: Engine, version: str) -> Starlette:
    """Build the HTTP application over the engine."""
    routes = _Routes(engine, version)
    return Starlette(
        routes=[
            Route("/v2", _translated(engine, routes.server)),
            Route("/v2/health/live", _translated(engine, routes.live)),
            Route("/v2/health/ready", _translated(engine, routes.ready)),
            Route("/v2/models/{model}", _translated(engine, routes.model)),
            Route("/v2/models/{model}/ready", _translated(engine, routes.model_ready)),
            Route("/v2/models/{model}/infer", _translated(engine, routes.infer), methods=["POST"]),
            Route(
                "/v2/models/{model}/events/{stream}",
                _translated(engine, routes.events),
                methods=["POST"],
            ),
        ]
    )


class _Routes:
    """Translate only: parse, call the engine, render."""

    def __init__(self, engine: Engine, version: str) -> None:
        self._engine = engine
        self._version = version

    async def server(self, _: Request) -> Response:
        return _json(
            {"name": "serinus", "version": self._version, "extensions": ["serinus_events"]}
        )

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
        return _json(
            {
                "name": release.ref.model,
                "versions": [release.ref.version],
                "platform": release.session.runtime,
                "inputs": tensors.described(release.definition),
                "outputs": [
                    {"name": "scores", "datatype": "FP32", "shape": [-1, len(release.classes)]},
                    {"name": "label", "datatype": "BYTES", "shape": [-1]},
                ],
            }
        )

    async def infer(self, request: Request) -> Response:
        release = self._release(request)
        asked = tensors.inference(await _body(request))
        if isinstance(release.definition, RequestDefinition):
            fields = tensors.fields_of(release.definition, asked)
            answers = await self._engine.ask(fields, asked.slices)
        else:
            answers = await self._engine.predict(tensors.samples_of(asked), asked.slices)
        return _json(tensors.answered(release, asked.id, answers))

    async def events(self, request: Request) -> Response:
        release, stream = self._release(request), request.path_params["stream"]
        sent = tensors.events(await _body(request))
        observed = await self._engine.observe(
            stream, sent.times_us, sent.sequence, sent.fields, sent.arrived_us
        )
        return _json(
            {
                "model_name": release.ref.model,
                "model_version": release.ref.version,
                "stream": stream,
                "taken": observed.taken,
                "dropped": msgspec.structs.asdict(observed.dropped),
            }
        )

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


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _TooLarge(f"body of more than {MAX_BODY_BYTES} bytes; send fewer rows")
    return bytes(body)


def _translated(engine: Engine, handler: Handler) -> Handler:
    """Turn our errors into status codes and count them; every other error is a bug."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except SerinusError as error:
            engine.refusals.count(error)
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
