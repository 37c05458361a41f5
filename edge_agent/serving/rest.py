"""Open Inference Protocol v2 over HTTP, on loopback, for everything that speaks it already.

A thin shell over the dataplane: it translates bodies and errors. What is beyond the protocol stands
in ``docs/serving.md``.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import msgspec

from edge_agent.serving import declared_consumer, http_bodies, http_protocol
from edge_agent.serving.asking import Occlusion
from edge_agent.serving.dataplane import EXTENSIONS, NAME, Dataplane, Inferred
from edge_agent.serving.engine import Engine
from edge_agent.serving.explanation import By
from edge_agent.serving.http_protocol import (
    Request,
    Respond,
    Response,
    TooLarge,
    TooLong,
    TooSlow,
)
from edge_agent.serving.metrics import CONTENT_TYPE, Metrics, StatusSource
from edge_core.errors import (
    DeadlineExceeded,
    InvalidConfiguration,
    InvalidMessage,
    Overloaded,
    SerinusError,
    Unavailable,
    UnknownModel,
    quoted,
)

log = logging.getLogger(__name__)

_Handler: TypeAlias = Callable[["App", "_Asked", Respond], None]


class _Asked(NamedTuple):
    """What a path and its request ask for."""

    model: str
    version: str
    """Empty where the path names none."""
    stream: str
    request: Request


class App:
    """The HTTP application over the engine; see :class:`~http_protocol.Application`."""

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
        self._running: set[asyncio.Task[None]] = set()

    def answer(self, request: Request, respond: Respond) -> None:
        """Answer, now or once the engine has."""
        try:
            model, version, stream, path = _parsed(request.path)
            methods = _ROUTES.get(path)
            if methods is None:
                raise NoSuchPath(f"no path {request.path[:64]!r}; docs/serving.md lists them")
            method = "GET" if request.method == "HEAD" else request.method
            handler = methods.get(method)
            if handler is None:
                raise NoSuchMethod(f"{request.method} is not for this path; use {min(methods)}")
            if request.header(b"content-encoding") not in (None, b"identity"):
                raise Compressed("the body is compressed, which is not read here; send it as it is")
            asked = _Asked(model, version, stream, request)
            handler(self, asked, respond)
        except SerinusError as error:
            respond(self.refused(error))
        except Exception as error:  # a defect of ours: this request gets an error, others go on
            respond(self._defect(error))

    def refused(self, error: SerinusError) -> Response:
        """Turn one of our errors into a response, and count it."""
        self._engine.refusals.count(error, "http")
        return _json({"error": str(error)}, _status(error))

    def _defect(self, error: Exception) -> Response:
        log.error("answering over HTTP failed: %s: %s", type(error).__name__, error)
        reason = f"the agent could not answer ({type(error).__name__}: {error})"
        self._engine.refusals.count(Unavailable(reason), "http")
        return _json({"error": reason}, 500)

    def start(self, coroutine: Coroutine[Any, Any, Response], respond: Respond) -> None:
        """Answer when the coroutine has."""
        task = asyncio.get_running_loop().create_task(self._run(coroutine, respond))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, coroutine: Coroutine[Any, Any, Response], respond: Respond) -> None:
        try:
            response = await coroutine
        except SerinusError as error:
            response = self.refused(error)
        except Exception as error:  # as above
            response = self._defect(error)
        respond(response)

    def _infer(self, asked: _Asked, respond: Respond) -> None:
        """By callbacks: a task for each would cost as much as parsing."""
        request = asked.request
        consumer = _consumer(request)
        read = http_bodies.inference(request.body, _header_length(request))

        def done(found: Inferred | SerinusError) -> None:
            try:
                respond(
                    self.refused(found)
                    if isinstance(found, SerinusError)
                    else _inferred(found, read.binary)
                )
            except Exception as error:  # as above
                respond(self._defect(error))

        self._plane.submit(asked.model, asked.version, read.asked, consumer, done)

    async def _server(self, _: _Asked) -> Response:
        return _json({"name": NAME, "version": self._plane.version, "extensions": EXTENSIONS})

    async def _live(self, _: _Asked) -> Response:
        self._engine.thread.check_alive()
        return _json({"live": True})

    async def _ready(self, _: _Asked) -> Response:
        ready = self._plane.ready
        return _json({"ready": ready}, 200 if ready else 503)

    async def _metrics_text(self, _: _Asked) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)

    async def _model(self, asked: _Asked) -> Response:
        found = self._plane.metadata(asked.model, asked.version)
        return _json(
            found._asdict()
            | {
                "inputs": [tensor._asdict() for tensor in found.inputs],
                "outputs": [tensor._asdict() for tensor in found.outputs],
            }
        )

    async def _model_ready(self, asked: _Asked) -> Response:
        release = self._plane.release_of(asked.model, asked.version)
        return _json({"name": release.ref.model, "ready": True})

    async def _explain(self, asked: _Asked) -> Response:
        request = asked.request
        read = http_bodies.inference(request.body, _header_length(request))
        found = await self._plane.explain(
            asked.model,
            asked.version,
            read.asked,
            _occlusion(read.parameters),
            _consumer(request),
        )
        content = msgspec.structs.asdict(found)
        named = {"model_name": content.pop("model"), "model_version": content.pop("version")}
        parameters = {"release": content.pop("digest"), "target": content.pop("target")}
        return _json(
            {
                **named,
                **({"id": read.asked.id} if read.asked.id else {}),
                "parameters": parameters,
                **content,
            }
        )

    async def _events(self, asked: _Asked) -> Response:
        sent = http_bodies.events(asked.request.body)
        release, observed = await self._plane.observe(
            asked.model,
            asked.version,
            asked.stream,
            sent.times_us,
            sent.sequence,
            sent.fields,
            sent.arrived_us,
        )
        return _json(
            {
                "model_name": release.ref.model,
                "model_version": release.ref.version,
                "stream": asked.stream,
                "taken": observed.taken,
                "dropped": msgspec.structs.asdict(observed.dropped),
            }
        )

    async def _feedback(self, asked: _Asked) -> Response:
        sent = http_bodies.feedback(asked.request.body)
        joined = self._plane.feedback(asked.model, asked.version, sent.prediction_id, sent.label)
        return _json({"joined": joined})


def _later(method: Callable[[App, _Asked], Coroutine[Any, Any, Response]]) -> _Handler:
    """The handler that awaits a method's response."""
    return lambda app, asked, respond: app.start(method(app, asked), respond)


_MODEL = ("v2", "models", "*")
_ROUTES: dict[tuple[str, ...], dict[str, _Handler]] = {
    ("healthz",): {"GET": _later(App._live)},
    ("readyz",): {"GET": _later(App._ready)},
    ("metrics",): {"GET": _later(App._metrics_text)},
    ("v2",): {"GET": _later(App._server)},
    ("v2", "health", "live"): {"GET": _later(App._live)},
    ("v2", "health", "ready"): {"GET": _later(App._ready)},
    _MODEL: {"GET": _later(App._model)},
    (*_MODEL, "ready"): {"GET": _later(App._model_ready)},
    (*_MODEL, "infer"): {"POST": App._infer},
    (*_MODEL, "explain"): {"POST": _later(App._explain)},
    (*_MODEL, "feedback"): {"POST": _later(App._feedback)},
    (*_MODEL, "events", "*"): {"POST": _later(App._events)},
}


@lru_cache(maxsize=256)
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


class NoSuchPath(SerinusError):
    """No interface is there."""


class NoSuchMethod(SerinusError):
    """The path is there for another method."""


class Compressed(InvalidMessage):
    """The body is compressed."""


def _inferred(found: Inferred, binary: frozenset[str]) -> Response:
    body, header_length = http_bodies.answer(
        model=found.model,
        version=found.version,
        request_id=found.id,
        parameters=found.parameters,
        outputs=found.outputs,
        binary=binary,
    )
    if header_length is None:
        return Response(body)
    more = b"inference-header-content-length: %d\r\n" % header_length
    return Response(body, media_type=b"application/octet-stream", more=more)


def _consumer(request: Request) -> str:
    return declared_consumer.named(request.header(declared_consumer.HTTP_HEADER), "http")


def _header_length(request: Request) -> int | None:
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


def _status(error: SerinusError) -> int:
    match error:
        case TooLarge():
            return 413
        case TooSlow():
            return 408
        case TooLong():
            return 431
        case Compressed():
            return 415
        case DeadlineExceeded():
            return 504
        case UnknownModel() | NoSuchPath():
            return 404
        case NoSuchMethod():
            return 405
        case Overloaded():
            return 429
        case Unavailable():
            return 503
        case _:
            return 400


def _json(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status)


def create_app(engine: Engine, version: str, status: StatusSource = dict) -> App:
    """Build the HTTP application; arguments as of :class:`App`."""
    return App(engine, version, status)


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
    await http_protocol.serve(app, listener)
