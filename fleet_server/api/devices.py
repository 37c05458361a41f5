"""Devices, their commands and what they refuse."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from fleet_server.api import answers
from fleet_server.api.access import Operator, ServicesOf, Viewer
from fleet_server.api.paging import Cursor, Limit, page, place_of
from fleet_server.api.schemas import Answer, OneCommand, SeveralCommands, items
from fleet_server.services.suite import Services
from fleet_server.services.views import DeviceView, FleetView
from fleet_server.storage.commands import StoredCommand
from fleet_server.storage.refusals import StoredRefusal, place
from fleet_server.storage.tokens import StoredToken

router = APIRouter(default_response_class=Answer)


@router.get("/fleet")
@answers.one(FleetView)
def fleet(services: ServicesOf, _token: Viewer) -> Response:
    """Answer with the fleet in numbers."""
    return Answer(services.overview.fleet())


@router.get("/devices")
@answers.part(DeviceView)
def devices(
    request: Request,
    services: ServicesOf,
    _token: Viewer,
    query: Annotated[str, Query(max_length=1000, examples=["site=oslo online=true"])] = "",
    cursor: Cursor = None,
    limit: Limit = 200,
) -> Response:
    """List devices by name: those that a query means, or all."""
    found = services.overview.devices(query=query, after=place_of(cursor, str), limit=limit + 1)
    return page(request, found, limit, lambda device: device.device)


@router.get("/devices/{device}")
@answers.one(DeviceView)
def device(device: str, services: ServicesOf, _token: Viewer) -> Response:
    """Show one device with its whole reported state."""
    return Answer(services.overview.device(device))


@router.get("/devices/{device}/commands")
@answers.items(StoredCommand)
def commands(device: str, services: ServicesOf, _token: Viewer, limit: Limit = 100) -> Response:
    """List a device's commands and what became of them, newest first."""
    return items(services.commands.of_device(device, limit))


@router.post("/devices/{device}/commands", status_code=202)
@answers.one(StoredCommand)
def command(device: str, body: OneCommand, services: ServicesOf, token: Operator) -> Response:
    """Order a device to do something at once."""
    [ordered] = _ordered(services, [device], body, token)
    return Answer(ordered, status_code=202)


@router.post("/commands", status_code=202)
@answers.items(StoredCommand)
def command_several(body: SeveralCommands, services: ServicesOf, token: Operator) -> Response:
    """Order several devices to do the same: all of them, or none."""
    ordered = _ordered(services, body.devices, body, token)
    return Answer({"items": ordered}, status_code=202)


def _ordered(
    services: Services, names: list[str], body: OneCommand, token: StoredToken
) -> list[StoredCommand]:
    return services.commands.order(
        names,
        body.kind,
        model=body.model,
        reason=body.reason,
        for_seconds=body.for_seconds,
        by=token.name,
        role=token.role,
    )


@router.get("/refusals")
@answers.part(StoredRefusal)
def refusals(
    request: Request,
    services: ServicesOf,
    _token: Viewer,
    cursor: Cursor = None,
    limit: Limit = 200,
) -> Response:
    """List releases that devices would not install, newest first."""
    found = services.overview.refusals(limit + 1, place_of(cursor, tuple[int, str, str]))
    return page(request, found, limit, place)
