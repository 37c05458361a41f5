"""Who uses a model's answers."""

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from fleet_server.api import answers
from fleet_server.api.access import Operator, ServicesOf, Viewer
from fleet_server.api.schemas import Answer, items
from fleet_server.services.consumers import ConsumerView

router = APIRouter(default_response_class=Answer)


class DeclareConsumer(BaseModel):
    """Body of PUT /models/{model}/consumers/{consumer}."""

    model_config = ConfigDict(extra="forbid")

    owner: str = Field(min_length=1, max_length=256, examples=["who answers for it"])
    note: str = Field(default="", max_length=256)


class Acknowledge(BaseModel):
    """Body of POST /models/{model}/consumers/{consumer}/acknowledgements."""

    model_config = ConfigDict(extra="forbid")

    major: int = Field(ge=0, le=1_000_000)
    note: str = Field(default="", max_length=256)


@router.get("/consumers")
@answers.items(ConsumerView)
def consumers(services: ServicesOf, _token: Viewer) -> Response:
    """List who uses which model: who is declared, and who was seen to ask."""
    return items(services.consumers.every())


@router.put("/models/{model}/consumers/{consumer}")
@answers.one(ConsumerView)
def declare(
    model: str, consumer: str, body: DeclareConsumer, services: ServicesOf, token: Operator
) -> Response:
    """Say that somebody uses a model's answers: no release breaks them unseen."""
    found = services.consumers.declare(
        model, consumer, body.owner, body.note, by=token.name, role=token.role
    )
    return Answer(found)


@router.delete("/models/{model}/consumers/{consumer}", status_code=204)
def withdraw(model: str, consumer: str, services: ServicesOf, token: Operator) -> Response:
    """Say that it uses them no more."""
    services.consumers.withdraw(model, consumer, by=token.name, role=token.role)
    return Response(status_code=204)


@router.post("/models/{model}/consumers/{consumer}/acknowledgements", status_code=201)
@answers.one(ConsumerView)
def acknowledge(
    model: str, consumer: str, body: Acknowledge, services: ServicesOf, token: Operator
) -> Response:
    """Say that it reads the answers of a MAJOR version rightly."""
    found = services.consumers.acknowledge(
        model, consumer, body.major, body.note, by=token.name, role=token.role
    )
    return Answer(found, status_code=201)
