"""Releases, what is in production, and where it comes from."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from fleet_server.api import answers
from fleet_server.api.access import ServicesOf, Viewer
from fleet_server.api.schemas import Answer, items
from fleet_server.services.lineage import Lineage, ReleaseDiff
from fleet_server.services.views import PastProduction, ProductionView, ReleaseView

router = APIRouter(default_response_class=Answer)

Name = Annotated[str, Query(max_length=100, examples=["watch-activity@1.1.0"])]
Moment = Annotated[int, Query(ge=0, le=2**53)]


@router.get("/releases")
@answers.items(ReleaseView)
def releases(services: ServicesOf, _token: Viewer) -> Response:
    """List every release that is or was approved."""
    return items(services.overview.releases())


@router.get("/production")
@answers.items(ProductionView, PastProduction)
def production(services: ServicesOf, _token: Viewer, at_ms: Moment | None = None) -> Response:
    """Tell what is in production, since when and built from what; or what was at a moment."""
    if at_ms is not None:
        return items(services.overview.production_at(at_ms))
    return items(services.overview.production())


@router.get("/production/history")
@answers.items(PastProduction)
def production_history(
    services: ServicesOf, _token: Viewer, model: Annotated[str | None, Query(max_length=64)] = None
) -> Response:
    """List what was ever in production, decided by which rollout and verdict; newest first."""
    return items(services.overview.production_history(model))


@router.get("/releases/diff")
@answers.one(ReleaseDiff)
def diff(services: ServicesOf, _token: Viewer, before: Name, after: Name) -> Response:
    """Tell what one release has otherwise than another, from their signed manifests."""
    return Answer(services.lineages.diff(before, after))


@router.get("/releases/{release}/lineage")
@answers.one(Lineage)
def lineage(release: str, services: ServicesOf, _token: Viewer) -> Response:
    """Show a release's ancestors, descendants, and what it was built from."""
    return Answer(services.lineages.of(release))
