"""The fast interface: length-prefixed frames over a Unix socket."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge_agent.serving import frames
from edge_agent.serving.asking import Occlusion
from edge_agent.serving.engine import Engine
from edge_agent.serving.explanation import Explanation
from edge_agent.serving.frames import (
    Answers,
    Ask,
    Explain,
    Explained,
    Failure,
    Feedback,
    Joined,
    Noted,
    Observe,
    Predict,
    Push,
    StatusAnswer,
)
from edge_agent.serving.work import Answer, Done, Remembered
from edge_core.errors import InvalidConfiguration, InvalidMessage, Overloaded, SerinusError
from edge_core.features.request_evaluation import Observed

MAX_CONNECTIONS = 1024
MAX_SKIPPED_BYTES = 64 * 1024 * 1024
BUFFER_BYTES = 16 * 1024
HEADER = frames.HEADER.size

StatusSource = Callable[[], dict[str, str | int | float | bool | None]]


class _Connection(asyncio.BufferedProtocol):
    """One application. Requests may be pipelined; answers carry their ids.

    Frames are parsed where the kernel put them: in one buffer, as large as the largest frame so
    far that did not fit, and small again after it.
    """

    def __init__(self, engine: Engine, status: StatusSource, open_connections: set[object]) -> None:
        self._engine = engine
        self._status = status
        self._open = open_connections
        self._buffer = bytearray(BUFFER_BYTES)
        self._filled = 0
        self._skip = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, unless there are too many."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if len(self._open) >= MAX_CONNECTIONS:
            self._refuse(0, Overloaded(f"more than {MAX_CONNECTIONS} connections; close some"))
            transport.close()
            return
        self._open.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        """Forget the connection; answers under way are dropped."""
        self._transport = None
        self._open.discard(self)

    def pause_writing(self) -> None:
        """Read no more requests while the application does not read its answers."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        if self._transport is not None:
            self._transport.resume_reading()

    def get_buffer(self, _: int) -> memoryview:
        """Where the next bytes go."""
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, count: int) -> None:
        """Handle every frame that is complete now."""
        self._filled += count
        start = 0
        while self._transport is not None:
            if self._skip:
                skipped = min(self._skip, self._filled - start)
                self._skip -= skipped
                start += skipped
            if self._skip or self._filled - start < HEADER:
                break
            length = self._length_at(start)
            end = start + HEADER + length
            if length > frames.MAX_FRAME_BYTES:
                self._skip_frame(length)
            elif end <= self._filled:
                self._handle(memoryview(self._buffer)[start + HEADER : end])
                start = end
            else:
                break
        self._keep(start)

    def _length_at(self, start: int) -> int:
        return int.from_bytes(self._buffer[start : start + HEADER], "little")

    def _skip_frame(self, length: int) -> None:
        """Refuse a frame by its length alone; its bytes are thrown away as they come."""
        self._skip = HEADER + length
        self._refuse(0, frames.too_large(length))
        if length > MAX_SKIPPED_BYTES and self._transport is not None:
            # No application of ours sends that: these bytes were no length.
            self._transport.close()

    def _keep(self, start: int) -> None:
        """Move what is left to the front of a buffer in which its whole frame has room."""
        left = self._filled - start
        needed = BUFFER_BYTES
        if left >= HEADER:
            needed += min(self._length_at(start), frames.MAX_FRAME_BYTES)
        if needed > len(self._buffer) or len(self._buffer) > 4 * needed:
            # The old one cannot be resized: the event loop still holds a view of it.
            fresh = bytearray(needed)
            fresh[:left] = memoryview(self._buffer)[start : self._filled]
            self._buffer = fresh
        elif start:
            self._buffer[:left] = self._buffer[start : self._filled]
        self._filled = left

    def _handle(self, body: memoryview) -> None:
        try:
            request = frames.decode_request(body)
        except InvalidMessage as error:
            self._refuse(frames.request_id(body), error)
            return
        try:
            self._dispatch(request)
        except SerinusError as error:
            self._refuse(request.id, error)

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
            case Observe():
                self._observe(request)
            case Ask():
                self._engine.submit_requests(
                    request.fields, request.slices, self._answer(request.id)
                )
            case Explain():
                self._explain(request)
            case Feedback():
                joined = self._engine.feedback(request.prediction_id, request.label)
                self._send(Joined(id=request.id, joined=joined))
            case _:
                self._send(StatusAnswer(id=request.id, status=self._status()))

    def _observe(self, request: Observe) -> None:
        arrived = request.arrived_us
        self._engine.submit_events(
            request.stream,
            frames.moments_of("times", request.times_us),
            frames.moments_of("sequence numbers", request.sequence),
            request.fields,
            None if arrived is None else frames.moments_of("arrivals", arrived),
            self._answer(request.id),
        )

    def _explain(self, request: Explain) -> None:
        how, done = Occlusion(request.by, request.per_class), self._answer(request.id)
        if request.shape is None and not request.samples:
            self._engine.submit_explanation_of_requests(request.fields, how, done)
        else:
            samples = frames.windows_of(request)
            self._engine.submit_explanation(samples, how, done)

    def _answer(self, request_id: int) -> Done:
        def done(answer: Answer) -> None:
            match answer:
                case SerinusError():
                    self._refuse(request_id, answer)
                case Observed(taken, dropped):
                    counts = msgspec.structs.asdict(dropped)
                    self._send(Noted(id=request_id, taken=taken, dropped=counts))
                case Explanation():
                    self._send(Explained(id=request_id, explanation=answer))
                case Remembered():
                    raise TypeError("no application asks for that")
                case _:
                    self._send(Answers(id=request_id, predictions=answer))

        return done

    def _refuse(self, request_id: int, error: SerinusError) -> None:
        self._engine.tally.refused("socket", type(error).__name__)
        self._send(Failure(id=request_id, kind=type(error).__name__, message=str(error)))

    def _send(self, response: frames.Response) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        try:
            data = frames.encode(response)
        except InvalidMessage as error:
            data = frames.encode(
                Failure(id=response.id, kind=type(error).__name__, message=str(error))
            )
        self._transport.write(data)


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
