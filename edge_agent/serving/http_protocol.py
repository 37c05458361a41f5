"""HTTP/1.1 on one connection: bytes to requests, responses to bytes, limits on all of it.

httptools (llhttp) parses. A request that comes while another is under way waits for it, and nothing
more is read meanwhile, so that answers keep their order and a connection holds little.

Source: RFC 9112.
"""

import asyncio
import contextlib
import socket
from collections import defaultdict, deque
from collections.abc import Callable
from http import HTTPStatus
from math import inf
from typing import NamedTuple, Protocol
from urllib.parse import unquote

import httptools

from edge_core.errors import InvalidMessage, Overloaded, SerinusError

MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_HEAD_BYTES = 16 * 1024
MAX_HEADERS = 64
MAX_CONNECTIONS = 1024
MAX_SKIPPED_BYTES = 64 * 1024 * 1024
REQUEST_SECONDS = 30.0
"""Within which a request has to come."""
IDLE_SECONDS = 75.0
"""After which a connection without requests is closed."""
SKIP_SECONDS = 5.0
"""How long a refused client may go on sending, so that it reads why it was refused."""
STOP_SECONDS = 1.0
"""For requests under way when the server stops."""
SWEEP_SECONDS = 1.0
MAX_PIPELINED = 64
"""Requests of one connection that may wait."""


class TooLarge(InvalidMessage):
    """The body has more bytes than are read."""


class TooLong(InvalidMessage):
    """The head has more bytes than are read."""


class TooSlow(InvalidMessage):
    """The request did not come in time."""


class Request(NamedTuple):
    """A request, whole."""

    method: str
    path: str
    """Decoded, without the query."""
    headers: list[tuple[bytes, bytes]]
    """Names in lower case."""
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The header's value; the first, where it comes twice."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


class Response(NamedTuple):
    """An answer."""

    body: bytes
    status: int = 200
    media_type: bytes = b"application/json"
    more: bytes = b""
    """Other headers, each with its end of line."""


Respond = Callable[[Response], None]


class Application(Protocol):
    """Answers requests."""

    def answer(self, request: Request, respond: Respond) -> None:
        """Answer now or later, on the event loop; never raise."""
        ...

    def refused(self, error: SerinusError) -> Response:
        """The answer to what is no request."""
        ...


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, app: Application, connections: set["Connection"]) -> None:
        self._app = app
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[Request, bytes]] = deque()
        self.busy = False
        """Whether a request is under way."""
        self.deadline = inf
        """By the loop's clock; what has to be over then."""
        self._paused = False
        self._receiving = False
        self._refusal: SerinusError | None = None
        self._skipped = -1  # not skipping
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: bytes | bytearray = b""
        self._head_bytes = self._message_bytes = self._number = 0
        self._in_head = True

    # Of asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, unless there are too many."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if len(self._connections) >= MAX_CONNECTIONS:
            self._refuse(Overloaded(f"more than {MAX_CONNECTIONS} connections; close some"))
        else:
            self.deadline = self._loop.time() + IDLE_SECONDS
        self._connections.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        """Forget the connection; answers under way are dropped."""
        self._transport = None
        self._waiting.clear()
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._skipped >= 0:
            self._skip(len(data))
            return
        number = self._number
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            # Ours, raised in a callback below, or the parser's.
            self._refusal = self._refusal or InvalidMessage(f"not HTTP: {error}")
        if self._receiving and number == self._number:
            self._more(len(data))
        if self._refusal is not None and not self.busy:
            self._refuse(self._refusal)

    def pause_writing(self) -> None:
        """Take no more requests while the client does not read its answers."""
        self._paused = True
        self._flow()

    def resume_writing(self) -> None:
        """Go on."""
        self._paused = False
        self._flow()
        self._next()

    # Of the server.

    def sweep(self, now: float) -> None:
        """Close the connection where it is late."""
        if now < self.deadline or self._transport is None:
            return
        if self._receiving and self._skipped < 0:
            self._refuse(TooSlow(f"the request did not come within {REQUEST_SECONDS:g} s"))
        else:
            self._transport.close()

    def close(self) -> None:
        """Close it now."""
        if self._transport is not None:
            self._transport.close()

    # Of httptools.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._begin()
        self._receiving = True
        if not self.busy:
            self.deadline = self._loop.time() + REQUEST_SECONDS

    def on_url(self, url: bytes) -> None:
        """A part of its target."""
        self._url += url
        self._head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        self._headers.append((name.lower(), value))
        self._head(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        for name, value in self._headers:
            if name == b"content-length" and int(value) > MAX_BODY_BYTES:  # the parser's digits
                raise self._refused(_too_large())
            if name in _WITH_BODY and value != b"0" and self._parser.should_upgrade():
                # The parser would not read the body.
                raise self._refused(
                    InvalidMessage("another protocol is offered with a body; ask without Upgrade")
                )
            if name == b"expect" and value.lower() == b"100-continue" and not self.busy:
                self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if not self._body:
            self._body = body  # all of it, mostly: no copy
            return
        if isinstance(self._body, bytes):
            self._body = bytearray(self._body)
        self._body += body
        if len(self._body) > MAX_BODY_BYTES:
            raise self._refused(_too_large())

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._receiving = False
        if len(self._waiting) >= MAX_PIPELINED:
            raise self._refused(Overloaded(f"more than {MAX_PIPELINED} requests in one go"))
        parser = self._parser
        method = parser.get_method().decode("ascii")
        request = Request(method, self._path(), self._headers, bytes(self._body))
        kept = _HOW_KEPT[parser.should_keep_alive(), parser.get_http_version()]
        self._waiting.append((request, kept))
        self._next()

    # Ours.

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                # Some clients offer HTTP/2, which may be ignored (RFC 9110, section 7.8).
                data = data[upgrade.args[0] :]

    def _begin(self) -> None:
        self._url = self._body = b""
        self._headers = []
        self._head_bytes = self._message_bytes = 0
        self._number += 1
        self._in_head = True

    def _more(self, count: int) -> None:
        """Refuse what grows within the parser, which tells of a header only once it is whole."""
        self._message_bytes += count
        if self._in_head and self._message_bytes > MAX_HEAD_BYTES:
            self._refusal = _too_long()
        elif self._message_bytes > 2 * MAX_BODY_BYTES:  # with the frames of its chunks
            self._refusal = _too_large()

    def _head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > MAX_HEAD_BYTES or len(self._headers) > MAX_HEADERS:
            raise self._refused(_too_long())

    def _path(self) -> str:
        target = self._url.partition(b"?")[0]
        if target[:1] != b"/":
            raise self._refused(InvalidMessage("the request names no path"))
        return unquote(target.decode("latin-1")) if b"%" in target else target.decode("latin-1")

    def _refused(self, error: SerinusError) -> SerinusError:
        """Keep the error beside the parser, which only tells that there was one."""
        self._refusal = error
        return error

    def _next(self) -> None:
        """Begin the next request where none is under way."""
        if self.busy or self._paused or not self._waiting or self._transport is None:
            self._flow()
            return
        request, kept = self._waiting.popleft()
        self.busy = True
        self.deadline = inf
        self._app.answer(request, lambda response: self._respond(request, response, kept))
        if self.busy:
            self._flow()

    def _respond(self, request: Request, response: Response, kept: bytes) -> None:
        self.busy = False
        if self._transport is None:
            return
        self._write(_encoded(response, kept, with_body=request.method != "HEAD"))
        if kept is _CLOSED:
            self._transport.close()
            return
        self.deadline = self._loop.time() + (REQUEST_SECONDS if self._receiving else IDLE_SECONDS)
        if self._waiting:
            self._loop.call_soon(self._next)  # not now: a long pipeline would be a deep recursion
        elif self._refusal is not None:
            self._refuse(self._refusal)
        else:
            self._flow()

    def _refuse(self, error: SerinusError) -> None:
        """Answer what is no request, and end the connection once the client had time to read."""
        if self._transport is None:
            return
        self._write(_encoded(self._app.refused(error), _CLOSED))
        self._skipped = 0
        self.deadline = self._loop.time() + SKIP_SECONDS
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _skip(self, count: int) -> None:
        self._skipped += count
        if self._skipped > MAX_SKIPPED_BYTES:
            self.close()

    def _flow(self) -> None:
        """Read while nothing waits, and while the client reads."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._paused or (self.busy and self._waiting):
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _too_long() -> TooLong:
    return TooLong(f"head of more than {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} headers")


def _too_large() -> TooLarge:
    return TooLarge(f"body of more than {MAX_BODY_BYTES} bytes; send fewer rows")


_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


_WITH_BODY = (b"content-length", b"transfer-encoding")
_CLOSED = b"connection: close\r\n"
_HOW_KEPT = defaultdict(
    lambda: _CLOSED, {(True, "1.1"): b"", (True, "1.0"): b"connection: keep-alive\r\n"}
)
"""What an answer says about the connection, by whether it is kept and the version of HTTP."""


def _encoded(response: Response, kept: bytes, *, with_body: bool = True) -> bytes:
    """Head and body in one piece: each write to a socket costs as much as parsing the request."""
    body, status, media_type, more = response
    return b"%scontent-type: %s\r\ncontent-length: %d\r\n%s%s\r\n%s" % (
        _STATUS_LINES[status],
        media_type,
        len(body),
        more,
        kept,
        body if with_body else b"",
    )


async def serve(app: Application, listener: socket.socket) -> None:
    """Serve on a bound socket until cancelled; requests under way get a moment to end."""
    loop = asyncio.get_running_loop()
    connections: set[Connection] = set()
    server = await loop.create_server(
        lambda: Connection(app, connections), sock=listener, backlog=256
    )
    try:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = loop.time()
            for connection in list(connections):
                connection.sweep(now)
    finally:
        server.close()
        for connection in list(connections):
            if not connection.busy:
                connection.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                while any(connection.busy for connection in connections):
                    await asyncio.sleep(0.01)
        for connection in list(connections):
            connection.close()
