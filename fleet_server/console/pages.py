"""The pages of the fleet, a rollout and a device; rendered without any script."""

from fastapi import APIRouter, Response

from fleet_server.console import enrolling, logging_in, watching
from fleet_server.console.rendering import (
    FOLDER,
    PageRoute,
    Reader,
    ServicesOf,
    page,
)

ROLLOUTS_SHOWN = 12
EVENTS_SHOWN = 40
COMMANDS_SHOWN = 50

router = APIRouter(include_in_schema=False, route_class=PageRoute)
router.include_router(watching.router)
router.include_router(enrolling.router)
router.include_router(logging_in.router)


@router.get("/")
def home(token: Reader, services: ServicesOf) -> Response:
    """Show the whole fleet on one page."""
    rollouts = services.rollouts.every()
    return page(
        "home.html",
        token=token,
        now_ms=services.overview.now_ms,
        fleet=services.overview.fleet(),
        production=services.overview.production(),
        devices=services.overview.devices(),
        releases=services.overview.releases(),
        rollouts=rollouts[:ROLLOUTS_SHOWN],
        alerts=services.overview.alerts(20),
        rejected=services.overview.rejected(10),
        events=services.overview.latest_events(EVENTS_SHOWN),
    )


@router.get("/rollouts/{rollout}")
def rollout(rollout: str, token: Reader, services: ServicesOf) -> Response:
    """Show one rollout with its stored verdicts."""
    shown = services.rollouts.one(rollout)
    verdicts = services.verdicts.of_rollout(rollout)
    return page(
        "rollout.html",
        token=token,
        now_ms=services.overview.now_ms,
        rollout=shown,
        verdicts=verdicts,
    )


@router.get("/devices/{device}")
def device(device: str, token: Reader, services: ServicesOf) -> Response:
    """Show one device: what it runs, who answers there, and what was ordered of it."""
    shown = services.overview.device(device)
    commands = services.commands.of_device(device, COMMANDS_SHOWN)
    # Not all of it was known to devices of version 1.
    reported: dict[str, object] = {
        "fallbacks": [],
        "placement": None,
        "previous": None,
        "probation": None,
        "shadow_dropped": 0,
        "troubles": [],
    }
    return page(
        "device.html",
        token=token,
        now_ms=services.overview.now_ms,
        device=shown,
        reported=reported | (shown.reported or {}),
        commands=commands,
    )


@router.get("/style.css")
def style() -> Response:
    """Send the page's own style."""
    return Response(
        (FOLDER / "style.css").read_bytes(),
        media_type="text/css",
        headers={"Cache-Control": "max-age=60"},
    )
