"""Tokens: who may call, as what, until when."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from fleet_server.api import answers
from fleet_server.api.access import ServicesOf, needs
from fleet_server.api.schemas import Answer, items
from fleet_server.services.tokens import TokenView
from fleet_server.storage.tokens import StoredToken

router = APIRouter(default_response_class=Answer)

Administrator = Annotated[StoredToken, Depends(needs("administer"))]


class CreateToken(BaseModel):
    """Body of POST /tokens."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    role: str = Field(max_length=16, examples=["viewer", "ci", "operator", "approver"])
    expires_ms: int | None = Field(default=None, ge=0, le=1 << 53)
    models: list[Annotated[str, Field(max_length=64)]] = Field(default=[], max_length=100)
    """What it may change something of; empty: of all."""


class Created(msgspec.Struct, frozen=True):
    """A token that was made."""

    secret: str
    """Shown this once."""


@router.post("/tokens", status_code=201)
@answers.one(Created)
def create_token(body: CreateToken, services: ServicesOf, token: Administrator) -> Response:
    """Make a token; its secret is shown this once.

    An Idempotency-Key is not taken: the answer would have to be stored with the secret.
    """
    secret = services.tokens.create(
        body.name,
        body.role,
        expires_ms=body.expires_ms,
        models=body.models,
        by=(token.name, token.role),
    )
    return Answer(Created(secret=secret), status_code=201)


@router.get("/tokens")
@answers.items(TokenView)
def list_tokens(services: ServicesOf, _token: Administrator) -> Response:
    """List the tokens, oldest first, without their secrets."""
    return items(services.tokens.every())


@router.delete("/tokens/{name}", status_code=204)
def revoke_token(name: str, services: ServicesOf, token: Administrator) -> Response:
    """End a token, named by its first digits as the list shows them, and its sessions."""
    services.tokens.revoke(name, (token.name, token.role))
    return Response(status_code=204)
