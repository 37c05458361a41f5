"""Requests to train a model again, and the workers that carry them out."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from fleet_server.api import answers
from fleet_server.api.access import Builder, Operator, ServicesOf, Viewer
from fleet_server.api.paging import Cursor, Limit, Number, page, place_of
from fleet_server.api.schemas import Answer, Reason, items
from fleet_server.api.scopes import names_models, within
from fleet_server.domain.retraining import Policy
from fleet_server.services.errors import InvalidRequest
from fleet_server.services.retraining import Claimed, Result
from fleet_server.storage.retraining import StoredPolicy, StoredRequest

router = APIRouter(default_response_class=Answer, prefix="/retraining")

ModelName = Annotated[str, Field(min_length=1, max_length=64)]


class Ask(BaseModel):
    """Body of POST /retraining/requests."""

    model_config = ConfigDict(extra="forbid")

    model: ModelName
    reason: str = Field(default="", max_length=500)
    automation: str = Field(default="build", examples=["build", "rollout"], max_length=16)
    alert: int | None = None


class Claim(BaseModel):
    """Body of POST /retraining/claims."""

    model_config = ConfigDict(extra="forbid")

    worker: str = Field(min_length=1, max_length=64)
    models: list[ModelName] = Field(min_length=1, max_length=100)


class Renew(BaseModel):
    """Body of POST /retraining/requests/{request}/renew."""

    model_config = ConfigDict(extra="forbid")

    lease: str = Field(max_length=64)
    progress: str = Field(default="", max_length=200)


class Finish(BaseModel):
    """Body of POST /retraining/requests/{request}/result."""

    model_config = ConfigDict(extra="forbid")

    lease: str = Field(max_length=64)
    state: str = Field(max_length=16, examples=["published", "refused", "unchanged", "failed"])
    outcome: str = Field(max_length=1000)
    release: str | None = Field(default=None, max_length=128)
    digest: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    gates: list[dict[str, Any]] = Field(default=[], max_length=200)


class SetPolicy(BaseModel):
    """Body of PUT /retraining/policies/{model}."""

    model_config = ConfigDict(extra="forbid")

    every_days: float | None = Field(default=None, gt=0, le=3660)
    on_drift: bool = True
    cooldown_days: float = Field(default=1.0, ge=0, le=3660)
    automation: str = Field(default="suggest", max_length=16)


class Claims(msgspec.Struct, frozen=True):
    """What a worker is to do."""

    claimed: Claimed | None
    """None: nothing waits."""


@router.get("/requests")
@answers.part(StoredRequest)
def requests(
    request: Request,
    services: ServicesOf,
    _token: Viewer,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """List requests to train models again, newest first."""
    found = services.retraining.every(limit + 1, place_of(cursor, int))
    return page(request, found, limit, lambda row: row.request)


@router.post("/requests", status_code=201)
@answers.one(StoredRequest)
@names_models
def ask(body: Ask, services: ServicesOf, token: Operator) -> Response:
    """Ask that a model be trained again."""
    within(token, [body.model])
    made = services.retraining.ask(
        body.model,
        body.reason,
        automation=body.automation,
        by=token.name,
        role=token.role,
        alert=body.alert,
    )
    return Answer(made, status_code=201)


@router.get("/requests/{request}")
@answers.one(StoredRequest)
def request(request: Number, services: ServicesOf, _token: Viewer) -> Response:
    """Show one request with the gates that refused it."""
    return Answer(services.retraining.one(request))


@router.post("/requests/{request}/approve")
@answers.one(StoredRequest)
def approve(request: Number, services: ServicesOf, token: Operator) -> Response:
    """Let a worker take a suggested request."""
    return Answer(services.retraining.approve(request, by=token.name, role=token.role))


@router.post("/requests/{request}/cancel")
@answers.one(StoredRequest)
def cancel(
    request: Number, services: ServicesOf, token: Operator, body: Reason | None = None
) -> Response:
    """End a request that nobody needs any more."""
    reason = body.reason if body else ""
    return Answer(services.retraining.cancel(request, reason, by=token.name, role=token.role))


@router.post("/claims")
@answers.one(Claims)
@names_models
def claim(body: Claim, services: ServicesOf, token: Builder) -> Response:
    """Take the oldest open request for a model that a worker can build; empty where none is."""
    within(token, body.models)
    return Answer(Claims(claimed=services.retraining.claim(body.worker, body.models)))


@router.post("/requests/{request}/renew")
@answers.one(StoredRequest)
def renew(request: Number, body: Renew, services: ServicesOf, _token: Builder) -> Response:
    """Hold a request for longer, and say how far it is."""
    return Answer(services.retraining.renew(request, body.lease, body.progress))


@router.post("/requests/{request}/result")
@answers.one(StoredRequest)
def finish(request: Number, body: Finish, services: ServicesOf, token: Builder) -> Response:
    """Say what came of a request."""
    result = msgspec.convert(body.model_dump(), Result)
    return Answer(services.retraining.finish(request, result, by=token.name, role=token.role))


@router.get("/policies")
@answers.items(StoredPolicy)
def policies(services: ServicesOf, _token: Viewer) -> Response:
    """List when models ask for training by themselves."""
    return items(services.retraining.policies())


@router.put("/policies/{model}")
@answers.one(StoredPolicy)
def set_policy(model: str, body: SetPolicy, services: ServicesOf, token: Operator) -> Response:
    """Set when a model asks for training by itself, and what may follow."""
    try:
        policy = msgspec.convert({"model": model, **body.model_dump()}, Policy)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error)) from error
    return Answer(services.retraining.set_policy(policy, by=token.name, role=token.role))


@router.delete("/policies/{model}", status_code=204)
def drop_policy(model: str, services: ServicesOf, token: Operator) -> Response:
    """Let a model ask for nothing by itself."""
    services.retraining.drop_policy(model, by=token.name, role=token.role)
    return Response(status_code=204)
