"""Who is told of events."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from fleet_server.api import answers
from fleet_server.api.access import Operator, ServicesOf, Viewer
from fleet_server.api.paging import Cursor, Limit, Number, page, place_of
from fleet_server.api.schemas import Answer, items
from fleet_server.services.webhooks import Shown
from fleet_server.storage.webhooks import StoredDelivery

router = APIRouter(default_response_class=Answer, prefix="/webhooks")


class CreateWebhook(BaseModel):
    """Body of POST /webhooks."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=64, examples=["pager"])
    url: str = Field(min_length=1, max_length=2000, examples=["https://pager.example/serinus"])
    kinds: list[Annotated[str, Field(max_length=32)]] = Field(
        default=["page"], max_length=20, examples=[["page"], ["rollout", "drift"]]
    )


@router.get("")
@answers.items(Shown)
def webhooks(services: ServicesOf, _token: Viewer) -> Response:
    """List who is told of events."""
    return items(services.webhooks.every())


@router.post("", status_code=201)
@answers.one(Shown)
def create_webhook(body: CreateWebhook, services: ServicesOf, token: Operator) -> Response:
    """Tell a receiver of events; the answer holds the secret that signs, once."""
    made = services.webhooks.create(body.name, body.url, body.kinds, by=token.name, role=token.role)
    return Answer(made, status_code=201)


@router.delete("/{webhook}", status_code=204)
def remove_webhook(webhook: str, services: ServicesOf, token: Operator) -> Response:
    """Tell a receiver no more."""
    services.webhooks.remove(webhook, by=token.name, role=token.role)
    return Response(status_code=204)


@router.post("/{webhook}/test", status_code=202)
@answers.one(StoredDelivery)
def send_test(webhook: str, services: ServicesOf, _token: Operator) -> Response:
    """Send a receiver a message that means nothing."""
    return Answer(services.webhooks.test(webhook), status_code=202)


@router.get("/{webhook}/deliveries")
@answers.part(StoredDelivery)
def deliveries(
    webhook: str,
    request: Request,
    services: ServicesOf,
    _token: Viewer,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Response:
    """List a receiver's messages, newest first."""
    found = services.webhooks.deliveries(webhook, limit + 1, place_of(cursor, int))
    return page(request, found, limit, lambda row: row.delivery)


@router.post("/deliveries/{delivery}/redeliver", status_code=202)
@answers.one(StoredDelivery)
def redeliver(delivery: Number, services: ServicesOf, _token: Operator) -> Response:
    """Send a message once more, now."""
    return Answer(services.webhooks.redeliver(delivery), status_code=202)
