"""Which model a request is about: a token may be for some models only.

Reading is open to all tokens. What changes something is refused to such a token unless its path
says which model that is, or the call names its models itself: a new call is closed until somebody
has thought about it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from fastapi import Request

from fleet_server.services.errors import NotAllowed
from fleet_server.services.suite import Services
from fleet_server.services.tokens import demand_models
from fleet_server.storage.tokens import StoredToken

F = TypeVar("F", bound=Callable[..., Any])
_NAMES = "__names_its_models__"


def _of_appeal(services: Services, number: str) -> str:
    return (services.appeals.one(int(number)).about.release or "").partition("@")[0]


BY_PATH: Final[Mapping[str, Callable[[Services, str], str]]] = {
    "model": lambda services, name: name,
    "rollout": lambda services, name: services.rollouts.one(name).model,
    "request": lambda services, number: services.retraining.one(int(number)).model,
    "appeal": _of_appeal,
}
"""Part of a path -> the model that it is about."""


def names_models(endpoint: F) -> F:
    """Mark a call that says by :func:`within` which models it is about."""
    setattr(endpoint, _NAMES, True)
    return endpoint


def within(token: StoredToken, models: Iterable[str]) -> None:
    """Raise :class:`NotAllowed` where a token is not for all of these models."""
    demand_models(token, models)


def check(request: Request, services: Services, token: StoredToken) -> None:
    """Refuse what changes something outside a token's models.

    Raises:
        NotAllowed: it does.
        NotFound: there is no such rollout, request or appeal.
    """
    if not token.models or getattr(request.scope["endpoint"], _NAMES, False):
        return
    for part, model_of in BY_PATH.items():
        value = request.path_params.get(part)
        if value is not None:
            demand_models(token, [model_of(services, str(value))])
            return
    raise NotAllowed(
        f"the token {token.name!r} is for {', '.join(token.models)} only, and this is about all "
        "models"
    )
