"""Events as they happen: server-sent events (WHATWG HTML, section 9.2)."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

import msgspec
from anyio import to_thread
from fastapi import APIRouter, Header, Request
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException

from fleet_server.api import answers
from fleet_server.api.access import ServicesOf, Viewer
from fleet_server.api.paging import After
from fleet_server.services.suite import Services
from fleet_server.storage.journal import Event

router = APIRouter()

LOOK_SECONDS = 0.5
HEARTBEAT_SECONDS = 15.0
"""Proxies end what is silent for longer."""
AT_ONCE = 500
MOST_LISTENERS = 200


@router.get("/events/stream")
@answers.other("text/event-stream")
async def stream(
    request: Request,
    services: ServicesOf,
    _token: Viewer,
    after: After | None = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Tell events as they happen, from now on or after a number; ``id`` is the event's number."""
    listeners = request.app.state.listeners
    if listeners >= MOST_LISTENERS:
        raise HTTPException(
            HTTPStatus.SERVICE_UNAVAILABLE, f"{MOST_LISTENERS} listen already: read /events instead"
        )
    begin = after
    if last_event_id is not None and last_event_id.isdecimal():
        begin = int(last_event_id[:18])
    if begin is None:
        newest = await to_thread.run_sync(services.overview.latest_events, 1)
        begin = newest[0].event if newest else 0
    return StreamingResponse(
        _told(request, services, begin),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _told(request: Request, services: Services, after: int) -> AsyncIterator[bytes]:
    """The journal by number: nothing is left out, whichever process wrote it."""
    state = request.app.state
    state.listeners += 1
    silent = 0.0
    try:
        yield b": connected\n\n"
        while not state.ending and not await request.is_disconnected():
            found = await to_thread.run_sync(services.overview.events, after, AT_ONCE)
            for event in found:
                after = event.event
                yield _line(event)
            if found:
                silent = 0.0
                continue
            await asyncio.sleep(LOOK_SECONDS)
            silent += LOOK_SECONDS
            if silent >= HEARTBEAT_SECONDS:
                silent = 0.0
                yield b": still here\n\n"
    finally:
        state.listeners -= 1


def _line(event: Event) -> bytes:
    data = msgspec.json.encode(event)
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.event, event.kind.encode(), data)
