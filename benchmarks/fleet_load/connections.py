"""Bare MQTT connections: devices that are there and say nothing (MQTT 3.1.1, 3.1 and 3.8)."""

import contextlib
import selectors
import socket
import struct
import time
from types import TracebackType
from typing import Self

from edge_core.messages import topics

AT_ONCE = 200


def text(value: str) -> bytes:
    """A string with its length."""
    data = value.encode()
    return struct.pack(">H", len(data)) + data


def packet(kind: int, body: bytes) -> bytes:
    """A control packet; bodies here are shorter than 128 bytes."""
    assert len(body) < 128
    return bytes([kind, len(body)]) + body


def hello(name: str) -> bytes:
    """CONNECT with a session that ends with it and no keepalive, and SUBSCRIBE to orders."""
    connect = packet(0x10, text("MQTT") + bytes([4, 2]) + struct.pack(">H", 0) + text(name))
    wanted = text(topics.down(name, "desired")) + b"\x01"
    return connect + packet(0x82, struct.pack(">H", 1) + wanted)


class Connections:
    """So many devices, connected and subscribed until the ``with`` block ends."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._count = count
        self._sockets: list[socket.socket] = []
        self.accepted = 0
        """Connections of which the broker has acknowledged both."""
        self.seconds = 0.0

    def __enter__(self) -> Self:
        begun = time.monotonic()
        for first in range(0, self._count, AT_ONCE):
            self._open(range(first, min(first + AT_ONCE, self._count)))
        self.seconds = time.monotonic() - begun
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for opened in self._sockets:
            opened.close()

    def alive(self) -> int:
        """Connections that the broker has not closed."""
        found = 0
        for opened in self._sockets:
            opened.setblocking(False)
            try:
                found += opened.recv(1, socket.MSG_PEEK) != b""
            except BlockingIOError:
                found += 1
            except OSError:
                pass
        return found

    def _open(self, numbers: range) -> None:
        waiting = {}
        with selectors.DefaultSelector() as selector:
            for number in numbers:
                try:
                    opened = socket.create_connection(("127.0.0.1", self._port), timeout=10)
                    opened.sendall(hello(f"idle-{number:05}"))
                except OSError:
                    continue
                self._sockets.append(opened)
                waiting[opened] = 4 + 5  # CONNACK and SUBACK
                selector.register(opened, selectors.EVENT_READ)
            until = time.monotonic() + 10
            while waiting and time.monotonic() < until:
                for key, _ in selector.select(1):
                    opened = key.fileobj
                    assert isinstance(opened, socket.socket)
                    with contextlib.suppress(OSError):
                        waiting[opened] -= len(opened.recv(waiting[opened]))
                    if waiting[opened] <= 0:
                        self.accepted += 1
                        del waiting[opened]
                        selector.unregister(opened)
