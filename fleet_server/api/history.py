"""How releases fared over time."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from fleet_server.api import answers
from fleet_server.api.access import ServicesOf, Viewer
from fleet_server.api.schemas import Answer, items
from fleet_server.services.history import HistoryView, Question, Resolution

router = APIRouter(default_response_class=Answer)

Moment = Annotated[int | None, Query(ge=0, le=1 << 53)]


@router.get("/history")
@answers.items(HistoryView)
def history(
    services: ServicesOf,
    _token: Viewer,
    model: Annotated[str, Query(max_length=64)],
    release: Annotated[str | None, Query(max_length=128)] = None,
    slice_: Annotated[str | None, Query(alias="slice", max_length=512)] = None,
    from_ms: Moment = None,
    to_ms: Moment = None,
    resolution: Resolution = "hour",
) -> Response:
    """List rows, errors and outcomes of a model's releases by hour or by day, oldest first."""
    asked = Question(
        model=model,
        release=release,
        slice_=slice_,
        from_ms=from_ms,
        to_ms=to_ms,
        resolution=resolution,
    )
    return items(services.history.tell(asked))
