"""``ETag``, ``If-None-Match``, ``If-Match`` (RFC 9110): nothing is sent or overwritten in vain."""

import hashlib
from http import HTTPStatus

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet_server.api import errors

PREFIX = "/api/v1/"
UNTAGGED = "/stream"
MOST_BODY = 8 * 1024 * 1024
WRITES = ("PUT", "POST", "DELETE")


class Conditional:
    """ASGI layer: answers to GET carry an ETag of their bytes; a write may ask for the one it saw.

    ``If-Match`` names the ETag of ``GET`` on the same path. Writes with one stand in line in this
    process, so that of two people who saw the same state one is refused.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._turn = anyio.Lock()

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
        async with self._turn:
            looked = {**scope, "method": "GET", "query_string": b""}
            messages = await self._answer(looked, receive)
            body = b"".join(m.get("body", b"") for m in messages)
            there = messages[0].get("status") == HTTPStatus.OK
            if not there or not _names(wanted, tag_of(body)):
                problem = errors.problem(
                    HTTPStatus.PRECONDITION_FAILED,
                    "it has changed since you looked at it: look again, then decide",
                )
                await problem(scope, receive, send)
                return
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> list[Message]:
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, keep)
        return messages


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
