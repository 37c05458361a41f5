"""How much and how slowly a stranger may say before the server knows what is asked.

uvicorn's parser takes header fields of any length and puts them together anew with every packet, so
that one request without an end would hold the whole server.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
"""Of a request's line and header fields, trailers or chunk extensions; beyond one first packet."""
HEAD_SECONDS = 20.0
"""In which a request's line and header fields have to be whole."""
BODY_SECONDS = 60.0
"""In which more of a body has to come."""
TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0"
    b"\r\n\r\n"
)


class LimitedHead(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with an end to what is read and gives no request and no body."""

    _fed = 0
    """Bytes since the parser gave something."""
    _in_head = True
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; close the connection where it leads to nothing."""
        self._fed += len(data)
        super().data_received(data)
        if self._fed > MAX_HEAD_BYTES and not self.transport.is_closing():
            if self._in_head:
                self.transport.write(TOO_LARGE)
            self.transport.close()
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._wait(HEAD_SECONDS)  # a line's end alone begins no request, and ends the idle time

    def on_message_begin(self) -> None:
        """A head begins."""
        self._fed, self._in_head = 0, True
        self._wait(HEAD_SECONDS)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._fed, self._in_head = 0, False
        self._wait(BODY_SECONDS)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body; whoever reads it limits it."""
        self._fed = 0
        self._wait(BODY_SECONDS)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole; its answer takes as long as it takes."""
        self._wait_no_more()
        super().on_message_complete()

    def _wait(self, seconds: float) -> None:
        self._wait_no_more()
        self._timer = self.loop.call_later(seconds, self.transport.close)

    def _wait_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
