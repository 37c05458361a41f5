"""Who calls: the bearer token of a request, and what its role has to allow."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request

from fleet_server.api import scopes
from fleet_server.domain.permissions import Permission
from fleet_server.services.suite import Services
from fleet_server.services.tokens import demand
from fleet_server.storage.tokens import StoredToken


def _services(request: Request) -> Services:
    found = request.app.state.services
    assert isinstance(found, Services)
    return found


async def services(request: Request) -> Services:
    """Return the services that the app was made with; at once, not by way of a thread."""
    return _services(request)


def needs(permission: Permission) -> Callable[[Request], StoredToken]:
    """A dependency that returns the caller's token, which has to allow ``permission``."""

    def token_of(request: Request) -> StoredToken:
        found = _services(request)
        token = found.tokens.authenticate(_bearer(request))
        demand(token, permission)
        if permission != "read":
            scopes.check(request, found, token)
        return token

    return token_of


def _bearer(request: Request) -> str | None:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else None


ServicesOf = Annotated[Services, Depends(services)]
Viewer = Annotated[StoredToken, Depends(needs("read"))]
Operator = Annotated[StoredToken, Depends(needs("operate"))]
Approver = Annotated[StoredToken, Depends(needs("approve"))]
Builder = Annotated[StoredToken, Depends(needs("build"))]
