"""What a supervisor such as systemd is told: the sd_notify protocol over a datagram socket."""

import contextlib
import socket

from edge_agent.config import Supervision

MAX_STATUS = 200
UNWATCHED_SECONDS = 60.0
"""A supervisor that asks for no signs of life is told the status this often."""


class Supervisor:
    """Sends what systemd understands (sd_notify(3)); without a supervisor, nothing."""

    def __init__(self, supervision: Supervision) -> None:
        self._address = supervision.address
        self.pause_seconds = (supervision.watchdog_seconds or UNWATCHED_SECONDS) / 3
        """How often a sign of life is due."""
        self._said = ""

    def ready(self) -> None:
        """Applications are served from now on."""
        self._send("READY=1")

    def alive(self, status: str) -> None:
        """A sign of life, with one line for a person."""
        line = "".join(c if c.isprintable() else "?" for c in status)[:MAX_STATUS]
        self._send(f"WATCHDOG=1\nSTATUS={line}" if line != self._said else "WATCHDOG=1")
        self._said = line

    def stopping(self) -> None:
        """The process ends as it was told to."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if self._address is None:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        # A supervisor that does not listen is no reason to stop serving.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        ):
            sender.setblocking(False)
            sender.sendto(text.encode(), address)
