"""The fast interface: length-prefixed frames over a Unix socket."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

from edge_agent.serving import frames
from edge_agent.serving.engine import Engine
from edge_agent.serving.frames import (
    Answers,
    Failure,
    Feedback,
    Joined,
    Predict,
    Push,
    StatusAnswer,
)
from edge_agent.serving.predictions import Prediction
from edge_core.errors import InvalidConfiguration, InvalidMessage, SerinusError

MAX_CONNECTIONS = 1024
MAX_UNSENT_BYTES = 16 * 1024 * 1024

StatusSource = Callable[[], dict[str, str | int | float | bool | None]]


class _Connection(asyncio.Protocol):
    """One application. Requests may be pipelined; answers carry their ids."""

    def __init__(self, engine: Engine, status: StatusSource, open_connections: set[object]) -> None:
        self._engine = engine
        self._status = status
        self._open = open_connections
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, unless there are too many."""
        assert isinstance(transport, asyncio.Transport)
        if len(self._open) >= MAX_CONNECTIONS:
            transport.abort()
            return
        self._transport = transport
        self._open.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        """Forget the connection; answers under way are dropped."""
        self._transport = None
        self._open.discard(self)

    def data_received(self, data: bytes) -> None:
        """Handle every frame that is complete now."""
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= frames.HEADER.size:
            try:
                length = frames.frame_length(self._buffer[start : start + frames.HEADER.size])
            except InvalidMessage as error:
                # Without a length there is no next frame: say why and hang up.
                self._send(Failure(id=0, kind=type(error).__name__, message=str(error)))
                self._hang_up()
                return
            end = start + frames.HEADER.size + length
            if len(self._buffer) < end:
                break
            self._handle(bytes(self._buffer[start + frames.HEADER.size : end]))
            start = end
        del self._buffer[:start]

    def _handle(self, body: bytes) -> None:
        request_id = 0
        try:
            request = frames.decode_request(body)
            request_id = request.id
            self._dispatch(request)
        except SerinusError as error:
            self._send(Failure(id=request_id, kind=type(error).__name__, message=str(error)))

    def _dispatch(self, request: frames.Request) -> None:
        match request:
            case Predict():
                samples = frames.windows_of(request)
                self._engine.submit(samples, request.slices, self._answer(request.id))
            case Push():
                times, samples = frames.samples_of(request)
                self._engine.submit_push(
                    request.stream, times, samples, request.slices, self._answer(request.id)
                )
            case Feedback():
                joined = self._engine.feedback(request.prediction_id, request.label)
                self._send(Joined(id=request.id, joined=joined))
            case _:
                self._send(StatusAnswer(id=request.id, status=self._status()))

    def _answer(self, request_id: int) -> Callable[[list[Prediction] | SerinusError], None]:
        def done(answer: list[Prediction] | SerinusError) -> None:
            if isinstance(answer, SerinusError):
                kind = type(answer).__name__
                self._send(Failure(id=request_id, kind=kind, message=str(answer)))
            else:
                self._send(Answers(id=request_id, predictions=answer))

        return done

    def _send(self, response: frames.Response) -> None:
        if self._transport is None:
            return
        self._transport.write(frames.encode(response))
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            # The application does not read its answers; memory is bounded, so it has to go.
            self._transport.abort()

    def _hang_up(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def listen(path: Path, engine: Engine, status: StatusSource) -> asyncio.Server:
    """Serve frames on a Unix socket that only this user may open.

    Raises:
        InvalidConfiguration: another process serves there, or the path cannot be used.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    connections: set[object] = set()
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_unix_server(
            lambda: _Connection(engine, status, connections), path=str(path), backlog=256
        )
        path.chmod(0o600)
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot serve on {path}: {error.strerror or error}; name another [serving] socket"
        ) from error
    return server


def _remove_stale(path: Path) -> None:
    """Remove a socket that a killed agent left behind; refuse one that answers."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            return
    raise InvalidConfiguration(
        f"another process serves on {path}; stop it, or name another [serving] socket"
    )
