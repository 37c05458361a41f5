"""A file server over real HTTP that understands ranges, and misbehaves at one request or at all."""

import http.server
import random
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SLOW_BYTES = 64
SLOW_SECONDS = 0.005


class _Handler(http.server.BaseHTTPRequestHandler):
    server: "Misbehaving"

    def do_GET(self) -> None:
        """Answer, or do what the server was told."""
        kind = self.server.kind_of_next()
        if kind.startswith("range:"):  # only where a part is asked for
            kind = kind.removeprefix("range:") if "Range" in self.headers else ""
        path = self.server.root / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        data, start = path.read_bytes(), 0
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if found:
            start = int(found[1])
        (_KINDS.get(kind) or _honest)(self, data, start, found is not None)

    def give(self, data: bytes, start: int, ranged: bool, length: int | None = None) -> None:
        """Send a status line, headers and these bytes of a file of so many."""
        self.send_response(206 if ranged else 200)
        if ranged:
            end = start + (len(data) if length is None else length)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        self.wfile.write(data)

    def cut(self) -> None:
        """Break the connection off."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print nothing."""


Kind = Callable[[_Handler, bytes, int, bool], None]


def _honest(handler: _Handler, data: bytes, start: int, ranged: bool) -> None:
    if ranged and start >= len(data):
        handler.send_error(416)
        return
    handler.give(data[start:], start, ranged)


def _drop(handler: _Handler, data: bytes, start: int, ranged: bool) -> None:
    handler.cut()


def _cut(handler: _Handler, data: bytes, start: int, ranged: bool) -> None:
    left = data[start:]
    handler.give(left[: len(left) // 2], start, ranged, len(left))
    handler.cut()


def _long(handler: _Handler, data: bytes, start: int, ranged: bool) -> None:
    handler.give(data[start:], start, ranged, len(data) - start + 100)
    handler.cut()


def _endless(handler: _Handler, data: bytes, start: int, ranged: bool) -> None:
    """More bytes than were announced in the release list, with a length that fits them."""
    handler.give(data[start:] + b"x" * 1_000_000, start, ranged)


def _short(handler: _Handler, data: bytes, start: int, ranged: bool) -> None:
    left = data[start:]
    handler.give(left[: len(left) // 2], start, ranged)


def _garbage(handler: _Handler, data: bytes, start: int, ranged: bool) -> None:
    handler.give(random.Random(7).randbytes(len(data) - start), start, ranged)


def _error(handler: _Handler, data: bytes, start: int, ranged: bool) -> None:
    handler.send_error(500)


def _empty(handler: _Handler, data: bytes, start: int, ranged: bool) -> None:
    handler.give(b"", 0, False)


def _nonsense(handler: _Handler, data: bytes, start: int, ranged: bool) -> None:
    handler.wfile.write(b"\x00\xff this is no HTTP\r\n\r\n")
    handler.cut()


def _slow(handler: _Handler, data: bytes, start: int, ranged: bool) -> None:
    left = data[start:]
    handler.give(b"", start, ranged, len(left))
    for at in range(0, len(left), SLOW_BYTES):
        handler.wfile.write(left[at : at + SLOW_BYTES])
        handler.wfile.flush()
        time.sleep(SLOW_SECONDS)


def _stall(handler: _Handler, data: bytes, start: int, ranged: bool) -> None:
    left = data[start:]
    handler.give(left[: len(left) // 2], start, ranged, len(left))
    handler.wfile.flush()
    time.sleep(3600)


def _late(handler: _Handler, data: bytes, start: int, ranged: bool) -> None:
    """A range that begins later than the one that was asked for, and says so."""
    handler.give(data[start + 5 :], start + 5, ranged)


def _early(handler: _Handler, data: bytes, start: int, ranged: bool) -> None:
    handler.give(data[max(0, start - 5) :], max(0, start - 5), ranged)


def _lying(handler: _Handler, data: bytes, start: int, ranged: bool) -> None:
    """Another range than the headers say."""
    handler.give(data[: len(data) - start], start, ranged)


def _whole(handler: _Handler, data: bytes, start: int, ranged: bool) -> None:
    handler.give(data, 0, False)


def _refused(handler: _Handler, data: bytes, start: int, ranged: bool) -> None:
    if ranged:
        handler.send_error(416)
    else:
        _honest(handler, data, start, ranged)


_KINDS: dict[str, Kind] = {
    "drop": _drop,
    "cut": _cut,
    "long": _long,
    "endless": _endless,
    "short": _short,
    "garbage": _garbage,
    "error": _error,
    "empty": _empty,
    "nonsense": _nonsense,
    "slow": _slow,
    "stall": _stall,
    "late": _late,
    "early": _early,
    "lying": _lying,
    "whole": _whole,
    "refused": _refused,
}
RANGES = ("late", "early", "lying", "whole", "refused", "garbage", "cut")


class Misbehaving(http.server.ThreadingHTTPServer):
    """Serves a folder. ``plan`` gives the kind of misbehaviour of each request by its number."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, root: Path, port: int, plan: Callable[[int], str], count: Path) -> None:
        self.root = root
        self._plan = plan
        self._number = 0
        self._count = count
        super().__init__(("127.0.0.1", port), _Handler)

    def kind_of_next(self) -> str:
        """What the request that has just come is answered with."""
        self._number += 1
        with self._count.open("a") as stream:
            stream.write("x")
        return self._plan(self._number)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""
