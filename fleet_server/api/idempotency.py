"""The ``Idempotency-Key`` header of POST requests."""

from http import HTTPStatus

from anyio import to_thread
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_core.errors import SerinusError, Unavailable
from fleet_server.api import errors
from fleet_server.services.idempotency import (
    MAX_KEY,
    Answered,
    IdempotentRequests,
    StillRunning,
    digest,
)
from fleet_server.services.tokens import Tokens

PREFIX = "/api/v1/"
HEADER = b"idempotency-key"
UNKEPT = ("/api/v1/tokens", "/api/v1/enrol/tokens")
"""Their answers are secrets that are stored nowhere."""
REPLAYED = "idempotency-replayed"
MOST_BODY = 1024 * 1024
"""A larger answer is not kept."""
RETRY_SECONDS = 1


class Idempotency:
    """ASGI layer that carries out a keyed request once, and answers again as it did then."""

    def __init__(self, app: ASGIApp, requests: IdempotentRequests, tokens: Tokens) -> None:
        self._app = app
        self._requests = requests
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what carries no key."""
        key = _header(scope, HEADER)
        path = str(scope.get("path", ""))
        keyed = scope.get("method") == "POST" and path.startswith(PREFIX) and path not in UNKEPT
        if scope["type"] != "http" or key is None or not keyed:
            await self._app(scope, receive, send)
            return
        if not 1 <= len(key) <= MAX_KEY or not key.decode("latin-1").isprintable():
            problem = errors.problem(
                HTTPStatus.BAD_REQUEST, f"an Idempotency-Key has 1 to {MAX_KEY} printable letters"
            )
            await problem(scope, receive, send)
            return
        secret = _header(scope, b"authorization") or b""
        try:  # who may not call leaves nothing behind
            await to_thread.run_sync(
                self._tokens.authenticate, secret.decode("latin-1").partition(" ")[2].strip()
            )
        except SerinusError:
            await self._app(scope, receive, send)
            return
        await self._once(scope, receive, send, digest(secret, key))

    async def _once(self, scope: Scope, receive: Receive, send: Send, identity: str) -> None:
        body = await _body(receive)
        request = digest(
            scope["method"].encode(), scope["path"].encode(), scope["query_string"], body
        )
        try:
            answered = await to_thread.run_sync(self._requests.begin, identity, request)
        except SerinusError as error:
            await _refusal(error)(scope, receive, send)
            return
        if answered is not None:
            replay = Response(answered.body, answered.status, media_type=answered.content_type)
            replay.headers[REPLAYED] = "true"
            await replay(scope, receive, send)
            return
        kept = _Kept(send)
        answer: Answered | None = None
        try:
            with self._requests.marking(identity):
                await self._app(scope, _again(body, receive), kept.send)
            answer = kept.answer()
        finally:
            await to_thread.run_sync(self._requests.end, identity, answer)
        await kept.pass_on()


class _Kept:
    """Holds an answer back until it is stored; a killed server has then answered nobody."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._messages: list[Message] = []

    async def send(self, message: Message) -> None:
        self._messages.append(message)

    async def pass_on(self) -> None:
        for message in self._messages:
            await self._send(message)

    def answer(self) -> Answered | None:
        """What was answered, where it is worth keeping: not that the server could not."""
        start = next((m for m in self._messages if m["type"] == "http.response.start"), None)
        if start is None or start["status"] >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return None
        body = b"".join(m.get("body", b"") for m in self._messages)
        kind = dict(start.get("headers", [])).get(b"content-type", b"").decode("latin-1")
        if len(body) > MOST_BODY:
            return None
        return Answered(status=start["status"], content_type=kind, body=body)


def _refusal(error: SerinusError) -> Response:
    found = errors.refusal(error)
    if isinstance(error, StillRunning | Unavailable):
        found.headers["retry-after"] = str(RETRY_SECONDS)
    return found


def _header(scope: Scope, name: bytes) -> bytes | None:
    found: bytes | None = next((v for n, v in scope.get("headers", []) if n == name), None)
    return found


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """The body once more, then whatever else the server says."""
    told = False

    async def replay() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
