"""The log of decisions."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from fleet_server.api.access import ServicesOf, Viewer
from fleet_server.api.paging import After, Cursor, Limit, number_of, page
from fleet_server.api.schemas import Answer

router = APIRouter(default_response_class=Answer)

Named = Annotated[str | None, Query(max_length=256)]


@router.get("/audit")
def entries(
    request: Request,
    services: ServicesOf,
    _token: Viewer,
    after: After = 0,
    cursor: Cursor = None,
    limit: Limit = 200,
    subject: Named = None,
    actor: Named = None,
) -> Response:
    """List decisions with a larger number, oldest first."""
    after = number_of(cursor) or after
    found = services.audit_log.entries(after, limit + 1, subject=subject, actor=actor)
    return page(request, found, limit, lambda entry: entry.entry)


@router.get("/audit/verify")
def verify(services: ServicesOf, _token: Viewer, head: Named = None) -> Response:
    """Walk the chain of decisions, and look for an entry that was kept elsewhere."""
    return Answer(services.audit_log.verify(head))
