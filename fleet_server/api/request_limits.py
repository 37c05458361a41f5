"""How often one caller may ask: nobody's loop takes the server from all others."""

import hashlib
from http import HTTPStatus

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter, SlidingWindowCounterRateLimiter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet_server.api import errors
from fleet_server.config import RequestsConfig

SECONDS = 10
MINUTE = 60
UNLIMITED = ("/healthz", "/readyz", "/metrics", "/repository/", "/style.css")
"""Watchers, and what devices and web servers fetch."""
WITHOUT_TOKEN = ("/api/v1/enrol", "/api/v1/enrol/renew")
"""A caller is an address here: there is no API token that could tell one from another."""


class RequestLimits:
    """ASGI layer: 429 with ``Retry-After`` beyond what a caller may ask.

    A caller is a token, or an address where none comes along. Wrong tokens count by address, so
    that nobody can try many.
    """

    def __init__(self, app: ASGIApp, config: RequestsConfig) -> None:
        self._app = app
        storage = MemoryStorage()
        self._asked = SlidingWindowCounterRateLimiter(storage)
        self._refused = MovingWindowRateLimiter(storage)
        self._most_asked = RateLimitItemPerSecond(config.per_second * SECONDS, SECONDS)
        self._most_refused = RateLimitItemPerSecond(config.refused_per_minute, MINUTE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or say when to ask again."""
        path = str(scope.get("path", ""))
        if scope["type"] != "http" or path.startswith(UNLIMITED):
            await self._app(scope, receive, send)
            return
        address = str((scope.get("client") or ("unknown",))[0])
        if not self._refused.test(self._most_refused, "refused", address):
            await self._wait(MINUTE, "too many wrong tokens from here", scope, receive, send)
            return
        if not self._asked.hit(self._most_asked, "asked", _caller(scope, address)):
            await self._wait(SECONDS, "too many requests", scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 401:
                self._refused.hit(self._most_refused, "refused", address)
            await send(message)

        await self._app(scope, receive, counted)

    async def _wait(
        self, seconds: int, why: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        text = f"{why}: ask again in {seconds} s, or more slowly"
        problem = errors.problem(HTTPStatus.TOO_MANY_REQUESTS, text)
        problem.headers["Retry-After"] = str(seconds)
        await problem(scope, receive, send)


def _caller(scope: Scope, address: str) -> str:
    if scope.get("path") in WITHOUT_TOKEN:
        return address
    for name, value in scope.get("headers", []):
        if name == b"authorization":
            return hashlib.sha256(value).hexdigest()[:32]
    return address
