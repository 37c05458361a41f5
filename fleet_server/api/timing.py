"""How long requests take, by method, route and class of status."""

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet_server.services.measures import Measures

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NONE = "none"
"""Of a request that no route took, and of an answer that never began."""
STREAMED = b"text/event-stream"


class Timing:
    """ASGI layer around all others: their time is part of what a caller waits for."""

    def __init__(
        self,
        app: ASGIApp,
        measures: Measures,
        monotonic: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._app = app
        self._requests = measures.requests
        self._now = monotonic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Measure one request; one whose answer is a stream of events until that begins."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = self._now()
        status, until = NONE, 0.0

        async def seen(message: Message) -> None:
            nonlocal status, until
            if message["type"] == "http.response.start":
                status = f"{message['status'] // 100}xx"
                if _streams(message):
                    until = self._now()
            await send(message)

        try:
            await self._app(scope, receive, seen)
        except Exception:
            status = "5xx"
            raise
        finally:
            method = scope["method"] if scope["method"] in METHODS else "other"
            seconds = (until or self._now()) - begun
            self._requests.labels(method, route_of(scope), status).observe(seconds)


def route_of(scope: Scope) -> str:
    """The template of the route that took a request, with the prefixes of its routers.

    A route may know only its own part of the path, which is then the end of it.
    """
    path: str | None = getattr(scope.get("route"), "path", None)
    if path is not None:
        before = scope["path"].split("/")[: -path.count("/")]
        return "/".join(before) + path
    return f"{scope['root_path']}/..." if "endpoint" in scope else NONE


def _streams(start: Message) -> bool:
    headers = start.get("headers", [])
    return any(n.lower() == b"content-type" and v.startswith(STREAMED) for n, v in headers)
