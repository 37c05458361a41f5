"""Open drifts, and what is done about them."""

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from fleet_server.api import answers
from fleet_server.api.access import Operator, ServicesOf, Viewer
from fleet_server.api.schemas import Answer, items
from fleet_server.services.drift_response import DriftView
from fleet_server.storage.drift_responses import StoredPolicy

router = APIRouter(default_response_class=Answer, prefix="/drift")


class Respond(BaseModel):
    """Body of POST /drift/{model}/responses."""

    model_config = ConfigDict(extra="forbid")

    action: str | None = Field(
        default=None,
        max_length=16,
        examples=["retrain", "rethink", "fix-source", "fallback", "usual"],
    )
    reason: str = Field(default="", max_length=500)
    for_seconds: float | None = Field(default=None, gt=0)


class SetDriftPolicy(BaseModel):
    """Body of PUT /drift/policies/{model}."""

    model_config = ConfigDict(extra="forbid")

    fallback: list[Annotated[str, Field(max_length=16)]] = Field(
        max_length=8, examples=[["seasonal", "upstream"]]
    )


@router.get("")
@answers.items(DriftView)
def drifts(services: ServicesOf, _token: Viewer) -> Response:
    """List drifts that have not ended, with what was done about them."""
    return items(services.drift_responses.every())


@router.post("/{model}/responses", status_code=201)
@answers.one(DriftView)
def respond(model: str, body: Respond, services: ServicesOf, token: Operator) -> Response:
    """Do something about a model's drift: what is suggested, where nothing is named."""
    found = services.drift_responses.respond(
        model,
        body.action,
        body.reason,
        for_seconds=body.for_seconds,
        by=token.name,
        role=token.role,
    )
    return Answer(found, status_code=201)


@router.get("/policies")
@answers.items(StoredPolicy)
def drift_policies(services: ServicesOf, _token: Viewer) -> Response:
    """List models whose devices fall back by themselves in a drift."""
    return items(services.drift_responses.policies())


@router.put("/policies/{model}")
@answers.one(StoredPolicy)
def set_drift_policy(
    model: str, body: SetDriftPolicy, services: ServicesOf, token: Operator
) -> Response:
    """Let a model's devices fall back by themselves in drifts of some kinds."""
    found = services.drift_responses.set_policy(
        model, body.fallback, by=token.name, role=token.role
    )
    return Answer(found)


@router.delete("/policies/{model}", status_code=204)
def drop_drift_policy(model: str, services: ServicesOf, token: Operator) -> Response:
    """Let a model's devices wait for a person."""
    services.drift_responses.drop_policy(model, by=token.name, role=token.role)
    return Response(status_code=204)
