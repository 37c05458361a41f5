"""Alerts, events and what was not taken in."""

from fastapi import APIRouter, Request, Response

from fleet_server.api.access import ServicesOf, Viewer
from fleet_server.api.paging import After, Cursor, Limit, number_of, page
from fleet_server.api.schemas import Answer, items

router = APIRouter(default_response_class=Answer)


@router.get("/alerts")
def alerts(services: ServicesOf, _token: Viewer, limit: Limit = 200) -> Response:
    """List open alerts, then closed ones."""
    return items(services.overview.alerts(limit))


@router.get("/events")
def events(
    request: Request,
    services: ServicesOf,
    _token: Viewer,
    after: After = 0,
    cursor: Cursor = None,
    limit: Limit = 200,
) -> Response:
    """List events after a number, oldest first."""
    after = number_of(cursor) or after
    found = services.overview.events(after, limit + 1)
    return page(request, found, limit, lambda event: event.event)


@router.get("/rejected")
def rejected(services: ServicesOf, _token: Viewer, limit: Limit = 200) -> Response:
    """List messages that were not taken in, counted by reason."""
    return items(services.overview.rejected(limit))
