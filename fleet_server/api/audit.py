"""The log of decisions."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from fleet_server.api.access import ServicesOf, Viewer
from fleet_server.api.paging import After, Limit
from fleet_server.api.schemas import Answer, items

router = APIRouter(default_response_class=Answer)

Named = Annotated[str | None, Query(max_length=256)]


@router.get("/audit")
def entries(
    services: ServicesOf,
    _token: Viewer,
    after: After = 0,
    limit: Limit = 200,
    subject: Named = None,
    actor: Named = None,
) -> Response:
    """List decisions with a larger number, oldest first."""
    return items(services.audit_log.entries(after, limit, subject=subject, actor=actor))


@router.get("/audit/verify")
def verify(services: ServicesOf, _token: Viewer, head: Named = None) -> Response:
    """Walk the chain of decisions, and look for an entry that was kept elsewhere."""
    return Answer(services.audit_log.verify(head))
