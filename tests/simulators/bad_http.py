"""A real HTTP server that serves one file, well or in one of many wrong ways."""

import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from edge_core.errors import SerinusError

ETAG = '"one"'


class Request:
    """One request under way; a behaviour answers it with raw bytes."""

    def __init__(self, handler: "_Handler", data: bytes) -> None:
        self.data = data
        self.range = handler.headers.get("Range")
        self.if_range = handler.headers.get("If-Range")
        self._handler = handler

    @property
    def start(self) -> int:
        """First byte that was asked for."""
        return int(self.range.removeprefix("bytes=").removesuffix("-")) if self.range else 0

    def head(self, status: int, **headers: object) -> None:
        """Send status line and headers; underscores stand for hyphens."""
        lines = [f"HTTP/1.1 {status} Whatever", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode())

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._handler.wfile.write(data)
        self._handler.wfile.flush()

    def dribble(self, data: bytes, pause: float) -> None:
        """Send a byte now and then, as long as the other side wants them."""
        for byte in data:
            self.send(bytes([byte]))
            time.sleep(pause)

    def cut(self) -> None:
        """Break the connection."""
        self._handler.connection.shutdown(socket.SHUT_RDWR)

    def well(self) -> None:
        """Answer as a good server does, ranges and their validator included."""
        if self.range is None or self.if_range not in (None, ETAG):
            self.head(200, Content_Length=len(self.data), ETag=ETAG)
            self.send(self.data)
            return
        rest, total = self.data[self.start :], len(self.data)
        where = f"bytes {self.start}-{total - 1}/{total}"
        self.head(206, Content_Length=len(rest), Content_Range=where, ETag=ETAG)
        self.send(rest)

    def cut_after(self, size: int) -> None:
        """Announce all that was asked for and send only some of it."""
        rest, total = self.data[self.start :], len(self.data)
        if self.range:
            where = f"bytes {self.start}-{total - 1}/{total}"
            self.head(206, Content_Length=len(rest), Content_Range=where, ETag=ETAG)
        else:
            self.head(200, Content_Length=total, ETag=ETAG)
        self.send(rest[:size])
        self.cut()


Behaviour = Callable[[Request], None]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: "_Server"

    def do_GET(self) -> None:
        """Answer by the behaviour whose turn it is; the last one stays."""
        owner = self.server.owner
        request = Request(self, owner.data)
        with owner.lock:
            owner.ranges.append(request.range)
            behaviour = owner.plan.pop(0) if len(owner.plan) > 1 else owner.plan[0]
        with contextlib.suppress(OSError):  # the other side has gone, as many behaviours want it
            behaviour(request)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    owner: "BadHttp"


class BadHttp:
    """Serves ``data`` under any path, one behaviour of ``plan`` for each request."""

    def __init__(self, data: bytes, *plan: Behaviour) -> None:
        self.data = data
        self.plan = list(plan) or [Request.well]
        self.ranges: list[str | None] = []
        """The Range header of every request so far."""
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where the file is."""
        return f"http://127.0.0.1:{self._server.server_port}/file"

    def __enter__(self) -> Self:
        """Serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def attempts(fetch: Callable[[], None], most: int = 20) -> list[str]:
    """Fetch until it works; what every attempt before was refused with."""
    refusals: list[str] = []
    while True:
        try:
            fetch()
        except SerinusError as error:
            refusals.append(str(error))
            assert len(refusals) < most, refusals
        else:
            return refusals
