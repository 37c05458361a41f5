"""Releases, what is in production, what it costs and who uses it."""

from fastapi import APIRouter, Response

from fleet_server.api.access import ServicesOf, Viewer
from fleet_server.api.schemas import Answer, items

router = APIRouter(default_response_class=Answer)


@router.get("/releases")
def releases(services: ServicesOf, _token: Viewer) -> Response:
    """List every release that is or was approved."""
    return items(services.overview.releases())


@router.get("/production")
def production(services: ServicesOf, _token: Viewer) -> Response:
    """Tell what is in production, since when and built from what."""
    return items(services.overview.production())


@router.get("/cost")
def cost(services: ServicesOf, _token: Viewer) -> Response:
    """List what predictions of each release cost."""
    return items(services.costs.by_release())


@router.get("/consumers")
def consumers(services: ServicesOf, _token: Viewer) -> Response:
    """List who asks which model, and how much."""
    return items(services.costs.consumers())
