"""Rollouts and their verdicts."""

from fastapi import APIRouter, Response

from fleet_server.api.access import Operator, ServicesOf, Viewer
from fleet_server.api.paging import Limit
from fleet_server.api.schemas import Answer, Reason, StartRollout, items

router = APIRouter(default_response_class=Answer)


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
