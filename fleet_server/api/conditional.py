"""``ETag``, ``If-None-Match``, ``If-Match`` (RFC 9110): nothing is sent or overwritten in vain."""

import asyncio
import hashlib
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet_server.api import errors
from fleet_server.services.errors import Changed
from fleet_server.storage.database import Database

PREFIX = "/api/v1/"
UNTAGGED = "/stream"
MOST_BODY = 8 * 1024 * 1024
WRITES = ("PUT", "POST", "DELETE")


class Conditional:
    """ASGI layer: answers to GET carry an ETag of their bytes; a write may ask for the one it saw.

    ``If-Match`` names the ETag of ``GET`` on the same path. It is compared once more within the
    transaction that writes: of two people who saw the same state one is refused, whichever
    processes they ask.
    """

    def __init__(self, app: ASGIApp, database: Database) -> None:
        self._app = app
        self._database = database

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is not asked under a condition."""
        path = str(scope.get("path", ""))
        if scope["type"] != "http" or not path.startswith(PREFIX) or path.endswith(UNTAGGED):
            await self._app(scope, receive, send)
        elif scope["method"] == "GET":
            await self._tagged(scope, receive, send)
        elif scope["method"] in WRITES and (wanted := _header(scope, b"if-match")) is not None:
            await self._matched(scope, receive, send, wanted)
        else:
            await self._app(scope, receive, send)

    async def _tagged(self, scope: Scope, receive: Receive, send: Send) -> None:
        messages = await self._answer(scope, receive)
        start, body = messages[0], b"".join(m.get("body", b"") for m in messages)
        if start.get("status") != HTTPStatus.OK or len(body) > MOST_BODY:
            for message in messages:
                await send(message)
            return
        tag = tag_of(body)
        headers = [*start["headers"], (b"etag", tag), (b"cache-control", b"private, no-cache")]
        known = _header(scope, b"if-none-match")
        if known is not None and _names(known, tag):
            kept = [(n, v) for n, v in headers if n not in (b"content-length", b"content-type")]
            await send({"type": "http.response.start", "status": 304, "headers": kept})
            await send({"type": "http.response.body", "body": b""})
            return
        await send({**start, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _matched(self, scope: Scope, receive: Receive, send: Send, wanted: bytes) -> None:
        looked = {**scope, "method": "GET", "query_string": b""}

        async def require_same() -> None:
            messages = await self._answer(looked, _nothing)
            body = b"".join(m.get("body", b"") for m in messages)
            there = messages[0].get("status") == HTTPStatus.OK
            if not there or not _names(wanted, tag_of(body)):
                raise Changed("it has changed since you looked at it: look again, then decide")

        try:
            await require_same()
        except Changed as error:
            await errors.refusal(error)(scope, receive, send)
            return
        # The thread that writes looks in a loop of its own: all others may wait for its lock.
        with self._database.provided(lambda: asyncio.run(require_same())):
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> list[Message]:
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, keep)
        return messages


async def _nothing() -> Message:
    """The request of a GET."""
    return {"type": "http.request", "body": b"", "more_body": False}


def tag_of(body: bytes) -> bytes:
    """A strong ETag of a representation."""
    return b'"' + hashlib.sha256(body).hexdigest()[:32].encode() + b'"'


def _names(header: bytes, tag: bytes) -> bool:
    """Whether a list of ETags holds one, or anything."""
    named = [part.strip().removeprefix(b"W/") for part in header.split(b",")]
    return b"*" in named or tag in named


def _header(scope: Scope, name: bytes) -> bytes | None:
    found: bytes | None = next((v for n, v in scope.get("headers", []) if n == name), None)
    return found
