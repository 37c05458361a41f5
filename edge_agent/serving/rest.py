"""Open Inference Protocol v2 over HTTP, on loopback, for everything that speaks it already.

A thin shell over the dataplane: it translates bodies and errors. What is beyond the protocol stands
in ``docs/serving.md``.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, NamedTuple, TypeAlias

import msgspec
import uvicorn

from edge_agent.serving import consumers, http_bodies
from edge_agent.serving.asking import Occlusion
from edge_agent.serving.dataplane import EXTENSIONS, NAME, Dataplane
from edge_agent.serving.engine import Engine
from edge_agent.serving.explanation import By
from edge_agent.serving.metrics import CONTENT_TYPE, Metrics, StatusSource
from edge_agent.serving.whole_answers import WholeAnswers
from edge_core.errors import (
    InvalidConfiguration,
    InvalidMessage,
    Overloaded,
    SerinusError,
    Unavailable,
    UnknownModel,
    quoted,
)

MAX_BODY_BYTES = 8 * 1024 * 1024
BODY_SECONDS = 30.0
"""Within which a body has to come."""
MAX_CONNECTIONS = 1024
KEEP_ALIVE_SECONDS = 75

_Headers: TypeAlias = list[tuple[bytes, bytes]]
_Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_JSON = b"application/json"


class _Request(NamedTuple):
    model: str
    version: str
    """Empty where the path names none."""
    stream: str
    headers: _Headers
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)


class _Response(NamedTuple):
    body: bytes
    status: int = 200
    media_type: bytes = _JSON
    more: tuple[tuple[bytes, bytes], ...] = ()


_Handler: TypeAlias = Callable[["App", _Request], Awaitable[_Response]]


class App:
    """The HTTP application (ASGI 3.0) over the engine."""

    def __init__(self, engine: Engine, version: str, status: StatusSource) -> None:
        """Build it.

        Args:
            engine: answers.
            version: of this agent.
            status: what the agent is doing, for the metrics that only it knows.
        """
        self._engine = engine
        self._plane = Dataplane(engine, version)
        self._metrics = Metrics(engine, version, status)

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send
    ) -> None:
        """Answer one request."""
        assert scope["type"] == "http", "nothing else is configured"
        try:
            response = await self._answer(scope, receive)
        except SerinusError as error:
            self._engine.tally.refused("rest", type(error).__name__.lstrip("_"))
            response = _refusal(error)
        body, status, media_type, more = response
        headers = [(b"content-type", media_type), (b"content-length", b"%d" % len(body)), *more]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: MutableMapping[str, Any], receive: _Receive) -> _Response:
        model, version, stream, rest = _parsed(scope["path"])
        methods = _ROUTES.get(rest)
        if methods is None:
            raise _NoSuchPath(f"no path {scope['path'][:64]!r} here; docs/serving.md lists them")
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        handler = methods.get(method)
        if handler is None:
            raise _NoSuchMethod(f"{scope['method'][:16]} is not for this path; use {min(methods)}")
        headers = scope["headers"]
        body = await _body(headers, receive) if method == "POST" else b""
        return await handler(self, _Request(model, version, stream, headers, body))

    async def _server(self, _: _Request) -> _Response:
        return _json({"name": NAME, "version": self._plane.version, "extensions": EXTENSIONS})

    async def _live(self, _: _Request) -> _Response:
        self._engine.check_alive()
        return _json({"live": True})

    async def _ready(self, _: _Request) -> _Response:
        ready = self._plane.ready
        return _json({"ready": ready}, 200 if ready else 503)

    async def _metrics_text(self, _: _Request) -> _Response:
        return _Response(self._metrics.text(), media_type=CONTENT_TYPE)

    async def _model(self, request: _Request) -> _Response:
        found = self._plane.metadata(request.model, request.version)
        return _json(
            found._asdict()
            | {
                "inputs": [tensor._asdict() for tensor in found.inputs],
                "outputs": [tensor._asdict() for tensor in found.outputs],
            }
        )

    async def _model_ready(self, request: _Request) -> _Response:
        release = self._plane.release_of(request.model, request.version)
        return _json({"name": release.ref.model, "ready": True})

    async def _infer(self, request: _Request) -> _Response:
        consumer = consumers.named(request.header(consumers.HTTP_HEADER))
        asked, binary, _ = http_bodies.inference(request.body, _header_length(request))
        found = await self._plane.infer(request.model, request.version, asked, consumer)
        body, header_length = http_bodies.answer(
            model=found.model,
            version=found.version,
            request_id=found.id,
            parameters=found.parameters,
            outputs=found.outputs,
            binary=binary,
        )
        if header_length is None:
            return _Response(body)
        more = ((b"inference-header-content-length", b"%d" % header_length),)
        return _Response(body, media_type=b"application/octet-stream", more=more)

    async def _explain(self, request: _Request) -> _Response:
        asked, _, parameters = http_bodies.inference(request.body, _header_length(request))
        found = await self._plane.explain(
            request.model, request.version, asked, _occlusion(parameters)
        )
        content = msgspec.structs.asdict(found)
        named = {"model_name": content.pop("model"), "model_version": content.pop("version")}
        parameters = {"release": content.pop("digest"), "target": content.pop("target")}
        return _json(
            {**named, **({"id": asked.id} if asked.id else {}), "parameters": parameters, **content}
        )

    async def _events(self, request: _Request) -> _Response:
        sent = http_bodies.events(request.body)
        release, observed = await self._plane.observe(
            request.model,
            request.version,
            request.stream,
            sent.times_us,
            sent.sequence,
            sent.fields,
            sent.arrived_us,
        )
        return _json(
            {
                "model_name": release.ref.model,
                "model_version": release.ref.version,
                "stream": request.stream,
                "taken": observed.taken,
                "dropped": msgspec.structs.asdict(observed.dropped),
            }
        )

    async def _feedback(self, request: _Request) -> _Response:
        sent = http_bodies.feedback(request.body)
        joined = self._plane.feedback(
            request.model, request.version, sent.prediction_id, sent.label
        )
        return _json({"joined": joined})


_MODEL = ("v2", "models", "*")
_ROUTES: dict[tuple[str, ...], dict[str, _Handler]] = {
    ("healthz",): {"GET": App._live},
    ("readyz",): {"GET": App._ready},
    ("metrics",): {"GET": App._metrics_text},
    ("v2",): {"GET": App._server},
    ("v2", "health", "live"): {"GET": App._live},
    ("v2", "health", "ready"): {"GET": App._ready},
    _MODEL: {"GET": App._model},
    (*_MODEL, "ready"): {"GET": App._model_ready},
    (*_MODEL, "infer"): {"POST": App._infer},
    (*_MODEL, "explain"): {"POST": App._explain},
    (*_MODEL, "feedback"): {"POST": App._feedback},
    (*_MODEL, "events", "*"): {"POST": App._events},
}


def _parsed(path: str) -> tuple[str, str, str, tuple[str, ...]]:
    """Model, version and stream that a path names, and the path without them."""
    parts = path.rstrip("/").split("/")[1:]
    model = version = stream = ""
    if len(parts) > 2 and parts[1] == "models":
        model, parts[2] = parts[2], "*"
        if len(parts) > 4 and parts[3] == "versions":
            version = parts[4]
            del parts[3:5]
        if len(parts) > 4 and parts[3] == "events":
            stream, parts[4] = parts[4], "*"
    return model, version, stream, tuple(parts)


class _NoSuchPath(SerinusError):
    """No interface is there."""


class _NoSuchMethod(SerinusError):
    """The path is there for another method."""


class _TooLarge(InvalidMessage):
    """The body has more bytes than are read."""


class _TooSlow(InvalidMessage):
    """The body did not come in time."""


class _Encoded(InvalidMessage):
    """The body is compressed."""


async def _body(headers: _Headers, receive: _Receive) -> bytes:
    for name, value in headers:
        if name == b"content-length" and int(value) > MAX_BODY_BYTES:  # digits: the server checked
            raise _too_large()
        if name == b"content-encoding" and value != b"identity":
            raise _Encoded("the body is compressed, which is not read here; send it as it is")
    message = await _next(receive)
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
        return body
    parts = bytearray(body)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while message.get("more_body", False):
                message = await _next(receive)
                parts += message.get("body", b"")
                if len(parts) > MAX_BODY_BYTES:
                    raise _too_large()
    except TimeoutError as error:
        raise _TooSlow(f"the body did not come within {BODY_SECONDS:g} s") from error
    return bytes(parts)


async def _next(receive: _Receive) -> MutableMapping[str, Any]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise InvalidMessage("the client left before its whole body had come")
    return message


def _too_large() -> _TooLarge:
    return _TooLarge(f"body of more than {MAX_BODY_BYTES} bytes; send fewer rows")


def _header_length(request: _Request) -> int | None:
    value = request.header(b"inference-header-content-length")
    if value is None:
        return None
    if not (value.isdigit() and len(value) < 12):
        text = quoted(InvalidMessage(value[:32].decode("latin-1")))
        raise InvalidMessage(f"Inference-Header-Content-Length is {text!r}, not a number of bytes")
    return int(value)


class _How(msgspec.Struct, frozen=True):
    by: By | None = None
    per_class: bool = False


def _occlusion(parameters: dict[str, Any]) -> Occlusion:
    try:
        how = msgspec.convert(parameters, _How)
        return Occlusion(how.by, how.per_class)
    except msgspec.ValidationError as error:
        raise InvalidMessage(f"parameters of an explanation: {quoted(error)}") from error


def _refusal(error: SerinusError) -> _Response:
    return _json({"error": str(error)}, _status(error))


def _status(error: SerinusError) -> int:
    match error:
        case _TooLarge():
            return 413
        case _TooSlow():
            return 408
        case _Encoded():
            return 415
        case UnknownModel() | _NoSuchPath():
            return 404
        case _NoSuchMethod():
            return 405
        case Overloaded():
            return 429
        case Unavailable():
            return 503
        case _:
            return 400


def _json(content: object, status: int = 200) -> _Response:
    return _Response(msgspec.json.encode(content), status)


def create_app(engine: Engine, version: str, status: StatusSource = dict) -> App:
    """Build the HTTP application; arguments as of :class:`App`."""
    return App(engine, version, status)


class _Server(uvicorn.Server):
    """uvicorn inside our own event loop: signals belong to the agent."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(port: int, setting: str = "rest_port") -> socket.socket:
    """Take a port of 127.0.0.1.

    Raises:
        InvalidConfiguration: the port is taken.
    """
    # asyncio turns Nagle's algorithm off, which costs 40 ms here, only where the protocol is named.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise InvalidConfiguration(
            f"port {port} on 127.0.0.1 cannot be used ({error.strerror}); name another "
            f"[serving] {setting}"
        ) from error
    return listener


async def serve(app: App, listener: socket.socket) -> None:
    """Serve until cancelled; the listener is closed then."""
    config = uvicorn.Config(
        app,
        http=WholeAnswers,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        interface="asgi3",
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        limit_concurrency=MAX_CONNECTIONS,
    )
    server = _Server(config)
    try:
        await server.serve(sockets=[listener])
    finally:
        server.should_exit = True
        listener.close()
