"""Routes below /api/v1: parse, call one service, render."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from fleet_server.api.access import Operator, ServicesOf, Viewer
from fleet_server.api.schemas import (
    Answer,
    OneCommand,
    Reason,
    SeveralCommands,
    StartRollout,
    items,
)
from fleet_server.services.suite import Services
from fleet_server.storage.commands import StoredCommand
from fleet_server.storage.tokens import StoredToken

router = APIRouter(prefix="/api/v1", default_response_class=Answer)

Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[int, Query(ge=0)]


@router.get("/fleet")
def fleet(services: ServicesOf, _token: Viewer) -> Response:
    """Answer with the fleet in numbers."""
    return Answer(services.overview.fleet())


@router.get("/devices")
def devices(services: ServicesOf, _token: Viewer) -> Response:
    """List every device."""
    return items(services.overview.devices())


@router.get("/devices/{device}")
def device(device: str, services: ServicesOf, _token: Viewer) -> Response:
    """Show one device with its whole reported state."""
    return Answer(services.overview.device(device))


@router.get("/devices/{device}/commands")
def commands(device: str, services: ServicesOf, _token: Viewer, limit: Limit = 100) -> Response:
    """List a device's commands and what became of them, newest first."""
    return items(services.commands.of_device(device, limit))


@router.post("/devices/{device}/commands", status_code=202)
def command(device: str, body: OneCommand, services: ServicesOf, token: Operator) -> Response:
    """Order a device to do something at once."""
    [ordered] = _ordered(services, [device], body, token)
    return Answer(ordered, status_code=202)


@router.post("/commands", status_code=202)
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
    )


@router.get("/releases")
def releases(services: ServicesOf, _token: Viewer) -> Response:
    """List every release that is or was approved."""
    return items(services.overview.releases())


@router.get("/production")
def production(services: ServicesOf, _token: Viewer) -> Response:
    """Tell what is in production, since when and built from what."""
    return items(services.overview.production())


@router.get("/cost")
def cost(services: ServicesOf, _token: Viewer) -> Response:
    """List what predictions of each release cost."""
    return items(services.costs.by_release())


@router.get("/consumers")
def consumers(services: ServicesOf, _token: Viewer) -> Response:
    """List who asks which model, and how much."""
    return items(services.costs.consumers())


@router.get("/rollouts")
def rollouts(services: ServicesOf, _token: Viewer) -> Response:
    """List every rollout, newest first."""
    return items(services.rollouts.every())


@router.post("/rollouts", status_code=201)
def start_rollout(body: StartRollout, services: ServicesOf, token: Operator) -> Response:
    """Start a rollout of an approved release."""
    started = services.rollouts.start(body.release, body.plan, token.name)
    return Answer(started, status_code=201)


@router.get("/rollouts/{rollout}")
def rollout(rollout: str, services: ServicesOf, _token: Viewer) -> Response:
    """Show one rollout with its stages and newest verdict."""
    return Answer(services.rollouts.one(rollout))


@router.post("/rollouts/{rollout}/pause")
def pause(
    rollout: str, services: ServicesOf, token: Operator, body: Reason | None = None
) -> Response:
    """Hold a rollout where it is."""
    return Answer(services.rollouts.pause(rollout, token.name, body.reason if body else ""))


@router.post("/rollouts/{rollout}/resume")
def resume(
    rollout: str, services: ServicesOf, token: Operator, body: Reason | None = None
) -> Response:
    """Go on with a paused rollout."""
    return Answer(services.rollouts.resume(rollout, token.name, body.reason if body else ""))


@router.post("/rollouts/{rollout}/rollback")
def rollback(
    rollout: str, services: ServicesOf, token: Operator, body: Reason | None = None
) -> Response:
    """Put every device of a rollout back on the release it had before."""
    return Answer(services.rollouts.roll_back(rollout, token.name, body.reason if body else ""))


@router.get("/verdicts/{rollout}")
def verdicts(rollout: str, services: ServicesOf, _token: Viewer, limit: Limit = 200) -> Response:
    """List the newest stored verdicts of a rollout, oldest first."""
    return items(services.verdicts.of_rollout(rollout, limit))


@router.post("/verdicts/{verdict}/replay")
def replay(verdict: int, services: ServicesOf, _token: Viewer) -> Response:
    """Judge a stored verdict's inputs again."""
    return Answer(services.verdicts.replay(verdict))


@router.get("/alerts")
def alerts(services: ServicesOf, _token: Viewer, limit: Limit = 200) -> Response:
    """List open alerts, then closed ones."""
    return items(services.overview.alerts(limit))


@router.get("/events")
def events(services: ServicesOf, _token: Viewer, after: After = 0, limit: Limit = 200) -> Response:
    """List events after a number, oldest first."""
    return items(services.overview.events(after, limit))


@router.get("/refusals")
def refusals(services: ServicesOf, _token: Viewer) -> Response:
    """List releases that devices would not install."""
    return items(services.overview.refusals())


@router.get("/rejected")
def rejected(services: ServicesOf, _token: Viewer, limit: Limit = 200) -> Response:
    """List messages that were not taken in, counted by reason."""
    return items(services.overview.rejected(limit))
