"""Who calls: the bearer token of a request."""

from typing import Annotated

from fastapi import Depends, Request

from fleet_server.services.suite import Services
from fleet_server.services.tokens import demand
from fleet_server.storage.tokens import StoredToken


def services(request: Request) -> Services:
    """Return the services that the app was made with."""
    found = request.app.state.services
    assert isinstance(found, Services)
    return found


def viewer(request: Request) -> StoredToken:
    """Return the caller's token, which has to allow reading."""
    token = services(request).tokens.authenticate(_bearer(request))
    demand(token, "viewer")
    return token


def operator(request: Request) -> StoredToken:
    """Return the caller's token, which has to allow changes."""
    token = services(request).tokens.authenticate(_bearer(request))
    demand(token, "operator")
    return token


def _bearer(request: Request) -> str | None:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else None


ServicesOf = Annotated[Services, Depends(services)]
Viewer = Annotated[StoredToken, Depends(viewer)]
Operator = Annotated[StoredToken, Depends(operator)]
