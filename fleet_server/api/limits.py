"""Refuses request bodies that are larger than any that the API takes."""

from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet_server.api.errors import problem


class _TooLarge(Exception):
    """More bytes came than the limit."""


class BodyLimit:
    """ASGI layer that stops reading a body at ``most`` bytes and answers 413."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, counting what is read of its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise _TooLarge
            return message

        try:
            await self._app(scope, counted, send)
        except _TooLarge:
            answer = problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {self._most} bytes"
            )
            await answer(scope, receive, send)
