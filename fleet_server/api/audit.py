"""The log of decisions."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from fleet_server.api import answers
from fleet_server.api.access import ServicesOf, Viewer
from fleet_server.api.paging import After, Cursor, Limit, page, place_of
from fleet_server.api.schemas import Answer
from fleet_server.services.audit_log import Checked
from fleet_server.storage.audit import Entry

router = APIRouter(default_response_class=Answer)

Named = Annotated[str | None, Query(max_length=256)]


@router.get("/audit")
@answers.part(Entry)
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
    after = place_of(cursor, int) or after
    found = services.audit_log.entries(after, limit + 1, subject=subject, actor=actor)
    return page(request, found, limit, lambda entry: entry.entry)


@router.get("/audit/verify")
@answers.one(Checked)
def verify(services: ServicesOf, _token: Viewer, head: Named = None) -> Response:
    """Walk the chain of decisions, and look for an entry that was kept elsewhere."""
    return Answer(services.audit_log.verify(head))
