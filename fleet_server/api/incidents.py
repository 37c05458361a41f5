"""Incidents, their timelines and post-mortems."""

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from fleet_server.api import answers
from fleet_server.api.access import Operator, ServicesOf, Viewer
from fleet_server.api.paging import Cursor, Limit, Number, page, place_of
from fleet_server.api.schemas import Answer
from fleet_server.services.incidents import IncidentView
from fleet_server.storage.incidents import StoredIncident, place

router = APIRouter(default_response_class=Answer, prefix="/incidents")


class Note(BaseModel):
    """Body of POST /incidents/{incident}/notes."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, max_length=2000)


class Assign(BaseModel):
    """Body of PUT /incidents/{incident}/owner."""

    model_config = ConfigDict(extra="forbid")

    owner: str = Field(min_length=1, max_length=64)


class Resolve(BaseModel):
    """Body of POST /incidents/{incident}/resolve."""

    model_config = ConfigDict(extra="forbid")

    cause: str = Field(min_length=1, max_length=2000)


@router.get("")
@answers.part(StoredIncident)
def incidents(
    request: Request,
    services: ServicesOf,
    _token: Viewer,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """List incidents: those that are not resolved first, then the newest."""
    found = services.incidents.every(limit + 1, place_of(cursor, tuple[int, int]))
    return page(request, found, limit, place)


@router.get("/{incident}")
@answers.one(IncidentView)
def incident(incident: Number, services: ServicesOf, _token: Viewer) -> Response:
    """Show an incident with its timeline and what it did."""
    return Answer(services.incidents.one(incident))


@router.post("/{incident}/notes", status_code=201)
@answers.one(IncidentView)
def note(incident: Number, body: Note, services: ServicesOf, token: Operator) -> Response:
    """Write a line into an incident's timeline."""
    view = services.incidents.note(incident, body.text, by=token.name, role=token.role)
    return Answer(view, status_code=201)


@router.put("/{incident}/owner")
@answers.one(IncidentView)
def assign(incident: Number, body: Assign, services: ServicesOf, token: Operator) -> Response:
    """Say who looks after an incident."""
    return Answer(services.incidents.assign(incident, body.owner, by=token.name, role=token.role))


@router.post("/{incident}/resolve")
@answers.one(IncidentView)
def resolve(incident: Number, body: Resolve, services: ServicesOf, token: Operator) -> Response:
    """End an incident with its cause."""
    return Answer(services.incidents.resolve(incident, body.cause, by=token.name, role=token.role))


@router.get("/{incident}/postmortem")
@answers.other("text/markdown")
def postmortem(incident: Number, services: ServicesOf, _token: Viewer) -> Response:
    """Send the whole of an incident as Markdown."""
    text = services.incidents.postmortem(incident)
    return Response(text, media_type="text/markdown; charset=utf-8")
