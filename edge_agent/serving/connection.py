"""One application on the socket: its frames in, its answers out. On the inference thread."""

import array
import contextlib
import logging
import os
import select
import socket
from collections.abc import Callable

from edge_agent.serving import consumers, frames
from edge_agent.serving.shared_memory import SharedRegions
from edge_agent.serving.thread import InferenceThread
from edge_core.errors import InvalidMessage, SerinusError, Unavailable

MAX_SKIPPED_BYTES = 64 * 1024 * 1024
MAX_DESCRIPTORS = 4
READ_BYTES = 256 * 1024
HEADER = frames.HEADER.size

Dispatch = Callable[["Connection", frames.Request], None]

# All connections are read by one thread, one after the other, into one buffer.
_read_buffer = bytearray(READ_BYTES)
_view = memoryview(_read_buffer)

log = logging.getLogger(__name__)


class Connection:
    """Requests may be pipelined; answers carry their ids.

    Frames are parsed where the kernel put them; only what is left of a frame is kept until the
    rest of it comes.
    """

    def __init__(
        self,
        peer: socket.socket,
        thread: InferenceThread,
        dispatch: Dispatch,
        due: Callable[["Connection"], None],
        refused: Callable[[SerinusError], None],
        closed: Callable[["Connection"], None],
    ) -> None:
        """Read from now on.

        Args:
            peer: the application.
            thread: that reads.
            dispatch: takes each request.
            due: told when answers wait for :meth:`flush`.
            refused: told of each failure that is sent.
            closed: told when the connection has ended.
        """
        peer.setblocking(False)
        self._socket = peer
        self._thread = thread
        self._dispatch = dispatch
        self._due = due
        self._refused = refused
        self._closed = closed
        self.open = True
        """Whether an answer can still be sent."""
        self._left = bytearray()
        self._skip = 0
        self._ending = False
        """Whether the connection ends, once all that this turn read is answered."""
        self._last_words = b""
        self._out: list[bytes] = []
        self._unsent = b""
        self._descriptors: list[int] = []
        self.regions = SharedRegions()
        self.consumer = consumers.peer_of(peer)
        """Who is at the other end."""
        thread.watch(peer.fileno(), self._ready)

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._send_on()
        if self.open and events & ~select.EPOLLOUT and not self._unsent:
            self._receive()

    def _receive(self) -> None:
        try:
            count, ancillary, _, _ = self._socket.recvmsg_into(
                [_read_buffer], socket.CMSG_SPACE(4 * MAX_DESCRIPTORS)
            )
        except BlockingIOError:
            return
        except OSError:  # the application is gone
            self.close()
            return
        if ancillary:
            self._keep_descriptors(ancillary)
        if not count:
            self.close()
            return
        if self._left:
            self._left += _view[:count]
            with memoryview(self._left) as data:
                used = self._handle_all(data, len(data))
                left = bytearray(data[used:]) if used and self.open else self._left
            self._left = left if self.open else bytearray()
        else:
            used = self._handle_all(_view, count)
            if used < count:
                self._left = bytearray(_view[used:count])

    def _handle_all(self, data: memoryview, filled: int) -> int:
        """Handle every frame that is complete; how many bytes are done with."""
        start = 0
        while self.open and not self._ending:
            if self._skip:
                skipped = min(self._skip, filled - start)
                self._skip -= skipped
                start += skipped
            if self._skip or filled - start < HEADER:
                break
            length: int = frames.HEADER.unpack_from(data, start)[0]
            end = start + HEADER + length
            if length > frames.MAX_FRAME_BYTES:
                self._skip_frame(length)
            elif end <= filled:
                self._handle(data[start + HEADER : end])
                start = end
            else:
                break
        return start

    def _skip_frame(self, length: int) -> None:
        """Refuse a frame by its length alone; its bytes are thrown away as they come."""
        self._skip = HEADER + length
        if length <= MAX_SKIPPED_BYTES:
            self.refuse(0, frames.too_large(length))
            return
        # No application of ours sends that: these bytes were no length.
        self._ending = True
        error = frames.too_large(length)
        self._refused(error)
        self._last_words = frames.encode(_failure(0, error))
        if not self._out:
            self._due(self)

    def _handle(self, body: memoryview) -> None:
        try:
            request = frames.decode_request(body)
        except InvalidMessage as error:
            self.refuse(frames.request_id(body), error)
            return
        try:
            self._dispatch(self, request)
        except SerinusError as error:
            self.refuse(request.id, error)
        except Exception as error:  # a defect of ours: this request gets an error, others go on
            log.error("a request failed: %s: %s", type(error).__name__, error)
            reason = f"the agent could not answer ({type(error).__name__}: {error})"
            self.refuse(request.id, Unavailable(reason))

    def refuse(self, request_id: int, error: SerinusError) -> None:
        """Answer with a failure."""
        self._refused(error)
        self.send(_failure(request_id, error))

    def send(self, response: frames.Response) -> None:
        """Send an answer at the end of the turn."""
        if not self.open:
            return
        try:
            data = frames.encode(response)
        except InvalidMessage as error:
            data = frames.encode(_failure(response.id, error))
        if not self._out:
            self._due(self)
        self._out.append(data)

    def flush(self) -> None:
        """Send what waits; no further request is read while the application does not read."""
        out, self._out = self._out, []
        if self._last_words:
            out.append(self._last_words)
            self._last_words = b""
        if not self.open or not out:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        if self._unsent:
            self._unsent += data
            return
        self._unsent = self._sent(data)
        if self._unsent:
            self._thread.watch(self._socket.fileno(), self._ready, select.EPOLLOUT)
        elif self._ending:
            self.close()

    def _send_on(self) -> None:
        self._unsent = self._sent(self._unsent)
        if self._unsent:
            return
        if self._ending:
            self.close()
        elif self.open:
            self._thread.watch(self._socket.fileno(), self._ready)

    def _sent(self, data: bytes) -> bytes:
        """Send as much as goes; what is left."""
        try:
            count = self._socket.send(data)
        except BlockingIOError:
            return data
        except OSError:  # the application is gone
            self.close()
            return b""
        return data[count:]

    def take_descriptor(self) -> int | None:
        """The oldest descriptor that came along; the caller has to close it."""
        return self._descriptors.pop(0) if self._descriptors else None

    def _keep_descriptors(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found = array.array("i")
                found.frombytes(data[: len(data) - len(data) % found.itemsize])
                self._descriptors += found
        while len(self._descriptors) > MAX_DESCRIPTORS:
            os.close(self._descriptors.pop())

    def close(self) -> None:
        """End the connection; answers under way are dropped."""
        if not self.open:
            return
        self.open = False
        self._thread.forget(self._socket.fileno())
        with contextlib.suppress(OSError):
            self._socket.close()
        self._out, self._unsent = [], b""
        self._left = bytearray()
        while self._descriptors:
            os.close(self._descriptors.pop())
        self.regions.close()
        self._closed(self)


def _failure(request_id: int, error: SerinusError) -> frames.Failure:
    return frames.Failure(id=request_id, kind=type(error).__name__, message=str(error))
