"""Alerts, events and what was not taken in."""

from fastapi import APIRouter, Response

from fleet_server.api.access import ServicesOf, Viewer
from fleet_server.api.paging import After, Limit
from fleet_server.api.schemas import Answer, items

router = APIRouter(default_response_class=Answer)


@router.get("/alerts")
def alerts(services: ServicesOf, _token: Viewer, limit: Limit = 200) -> Response:
    """List open alerts, then closed ones."""
    return items(services.overview.alerts(limit))


@router.get("/events")
def events(services: ServicesOf, _token: Viewer, after: After = 0, limit: Limit = 200) -> Response:
    """List events after a number, oldest first."""
    return items(services.overview.events(after, limit))


@router.get("/rejected")
def rejected(services: ServicesOf, _token: Viewer, limit: Limit = 200) -> Response:
    """List messages that were not taken in, counted by reason."""
    return items(services.overview.rejected(limit))
