"""An answer of HTTP in one system call.

uvicorn writes an answer's head and body each by itself, and a write to a socket is the dearest part
of a small request: more than a quarter of it.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol


class _Joining:
    """A transport that sends together what one turn of the event loop writes."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._waiting: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send the bytes at the end of this turn of the loop."""
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)

    def close(self) -> None:
        """Send what waits, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._transport.write(b"".join(waiting))

    def __getattr__(self, name: str) -> Any:
        """Everything else is the transport's."""
        return getattr(self._transport, name)


class WholeAnswers(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # chosen when it is imported
    """uvicorn's protocol over such a transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Take the connection."""
        super().connection_made(_Joining(transport))
