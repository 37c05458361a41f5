"""Sites, tags and groups of devices."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from fleet_server.api import answers
from fleet_server.api.access import Operator, ServicesOf, Viewer
from fleet_server.api.schemas import Answer, items
from fleet_server.services.groups import Change, GroupView
from fleet_server.storage.registry import Group

router = APIRouter(default_response_class=Answer)

Tag = Annotated[str, Field(min_length=1, max_length=64)]


class Label(BaseModel):
    """Body of POST /device-labels; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(min_length=1, max_length=1000, examples=["site=berlin side=left"])
    """A query, or a group's name."""
    site: str | None = Field(default=None, max_length=64)
    retired: bool | None = None
    add_tags: list[Tag] = Field(default=[], max_length=32)
    remove_tags: list[Tag] = Field(default=[], max_length=32)


class SaveGroup(BaseModel):
    """Body of PUT /groups/{name}."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(min_length=1, max_length=1000)


@router.post("/device-labels")
@answers.items(str)
def label(body: Label, services: ServicesOf, token: Operator) -> Response:
    """Set site, tags or retirement of every device that a query means."""
    change = msgspec.convert(body.model_dump(exclude={"query"}), Change)
    names = services.groups.label(body.query, change, by=token.name, role=token.role)
    return items(names)


@router.get("/groups")
@answers.items(Group)
def groups(services: ServicesOf, _token: Viewer) -> Response:
    """List the saved queries over devices."""
    return items(services.groups.every())


@router.get("/groups/{name}")
@answers.one(GroupView)
def group(name: str, services: ServicesOf, _token: Viewer) -> Response:
    """Show a saved query and the devices that it means now."""
    return Answer(services.groups.one(name))


@router.put("/groups/{name}")
@answers.one(Group)
def save_group(name: str, body: SaveGroup, services: ServicesOf, token: Operator) -> Response:
    """Save a query under a name."""
    return Answer(services.groups.save(name, body.query, by=token.name, role=token.role))


@router.delete("/groups/{name}", status_code=204)
def drop_group(name: str, services: ServicesOf, token: Operator) -> Response:
    """Remove a saved query; its devices stay as they are."""
    services.groups.drop(name, by=token.name, role=token.role)
    return Response(status_code=204)
