"""Alerts, events and what was not taken in."""

from fastapi import APIRouter, Request, Response

from fleet_server.api import answers
from fleet_server.api.access import ServicesOf, Viewer
from fleet_server.api.paging import After, Cursor, Limit, page, place_of
from fleet_server.api.schemas import Answer
from fleet_server.storage.journal import (
    Alert,
    Event,
    RejectedMessages,
    alert_place,
    rejection_place,
)

router = APIRouter(default_response_class=Answer)


@router.get("/alerts")
@answers.part(Alert)
def alerts(
    request: Request,
    services: ServicesOf,
    _token: Viewer,
    cursor: Cursor = None,
    limit: Limit = 200,
) -> Response:
    """List open alerts, then closed ones; newest first."""
    found = services.overview.alerts(limit + 1, place_of(cursor, tuple[int, int]))
    return page(request, found, limit, alert_place)


@router.get("/events")
@answers.part(Event)
def events(
    request: Request,
    services: ServicesOf,
    _token: Viewer,
    after: After = 0,
    cursor: Cursor = None,
    limit: Limit = 200,
) -> Response:
    """List events after a number, oldest first."""
    after = place_of(cursor, int) or after
    found = services.overview.events(after, limit + 1)
    return page(request, found, limit, lambda event: event.event)


@router.get("/rejected")
@answers.part(RejectedMessages)
def rejected(
    request: Request,
    services: ServicesOf,
    _token: Viewer,
    cursor: Cursor = None,
    limit: Limit = 200,
) -> Response:
    """List messages that were not taken in, counted by reason; the latest first."""
    after = place_of(cursor, tuple[int, str, str, str])
    return page(request, services.overview.rejected(limit + 1, after), limit, rejection_place)
