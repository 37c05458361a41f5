"""What predictions cost, at which prices, and what they may cost."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from fleet_server.api import answers
from fleet_server.api.access import Operator, ServicesOf, Viewer
from fleet_server.api.schemas import Answer, items
from fleet_server.services.budgets import BudgetView
from fleet_server.services.cost import CostView
from fleet_server.storage.budgets import StoredPrices

router = APIRouter(default_response_class=Answer)

Price = Annotated[float | None, Field(ge=0)]
Span = Literal["day", "month", "thousand"]


class SetPrices(BaseModel):
    """Body of PUT /prices."""

    model_config = ConfigDict(extra="forbid")

    device_second: Price = None
    """Of a second of a device's processor."""
    megabyte: Price = None
    """Of a million bytes of MQTT payload."""
    label: Price = None
    currency: str = Field(default="", max_length=8, examples=["EUR"])
    since_ms: int | None = Field(default=None, ge=0, le=2**53)
    """The day from which they hold; today where left out."""


class SetBudget(BaseModel):
    """Body of PUT /budgets/{model}/{span}."""

    model_config = ConfigDict(extra="forbid")

    amount: float = Field(gt=0)


@router.get("/cost")
@answers.items(CostView)
def cost(
    services: ServicesOf, _token: Viewer, days: Annotated[int | None, Query(ge=1, le=3660)] = None
) -> Response:
    """List what predictions of each release cost on each target, over days or all time."""
    return items(services.costs.by_target(days))


@router.get("/prices")
@answers.items(StoredPrices)
def prices(services: ServicesOf, _token: Viewer) -> Response:
    """List prices by the day from which they hold."""
    return items(services.budgets.prices())


@router.put("/prices")
@answers.one(StoredPrices)
def set_prices(body: SetPrices, services: ServicesOf, token: Operator) -> Response:
    """Say what a device's second, a megabyte and a label cost from a day on."""
    found = services.budgets.set_prices(**body.model_dump(), by=token.name, role=token.role)
    return Answer(found)


@router.get("/budgets")
@answers.items(BudgetView)
def budgets(services: ServicesOf, _token: Viewer) -> Response:
    """List budgets, and how they stand."""
    return items(services.budgets.every())


@router.put("/budgets/{model}/{span}")
@answers.one(BudgetView)
def set_budget(
    model: str, span: Span, body: SetBudget, services: ServicesOf, token: Operator
) -> Response:
    """Say what a model may cost in a day, in a month, or for a thousand predictions."""
    found = services.budgets.set(model, span, body.amount, by=token.name, role=token.role)
    return Answer(found)


@router.delete("/budgets/{model}/{span}", status_code=204)
def drop_budget(model: str, span: Span, services: ServicesOf, token: Operator) -> Response:
    """Let a model cost what it does."""
    services.budgets.drop(model, span, by=token.name, role=token.role)
    return Response(status_code=204)
