"""Rollouts and their verdicts."""

from fastapi import APIRouter, Response

from fleet_server.api.access import Approver, Operator, ServicesOf, Viewer
from fleet_server.api.paging import Limit
from fleet_server.api.schemas import Answer, Reason, StartRollout, items
from fleet_server.domain.plan import DEFAULT_PLAN

router = APIRouter(default_response_class=Answer)


@router.get("/rollouts")
def rollouts(services: ServicesOf, _token: Viewer) -> Response:
    """List every rollout, newest first."""
    return items(services.rollouts.every())


@router.post("/rollouts", status_code=201)
def start_rollout(body: StartRollout, services: ServicesOf, token: Operator) -> Response:
    """Start a rollout of an approved release."""
    started = services.rollouts.start(
        body.release, body.plan, token.name, role=token.role, supersede=body.supersede
    )
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
    return Answer(services.rollouts.pause(rollout, token.name, _why(body), role=token.role))


@router.post("/rollouts/{rollout}/resume")
def resume(
    rollout: str, services: ServicesOf, token: Operator, body: Reason | None = None
) -> Response:
    """Go on with a paused rollout."""
    return Answer(services.rollouts.resume(rollout, token.name, _why(body), role=token.role))


@router.post("/rollouts/{rollout}/rollback")
def rollback(
    rollout: str, services: ServicesOf, token: Operator, body: Reason | None = None
) -> Response:
    """Put every device of a rollout back on the release it had before."""
    return Answer(services.rollouts.roll_back(rollout, token.name, _why(body), role=token.role))


@router.post("/rollouts/{rollout}/abort")
def abort(
    rollout: str, services: ServicesOf, token: Operator, body: Reason | None = None
) -> Response:
    """End a rollout where it is: devices that run the candidate keep it."""
    return Answer(services.rollouts.abort(rollout, token.name, _why(body), role=token.role))


@router.post("/rollouts/{rollout}/approvals", status_code=201)
def approve(
    rollout: str, services: ServicesOf, token: Approver, body: Reason | None = None
) -> Response:
    """Approve what follows the present stage; whoever started the rollout may not."""
    approved = services.rollouts.approve(rollout, token.name, _why(body), role=token.role)
    return Answer(approved, status_code=201)


@router.post("/rollouts/{rollout}/release-holdout")
def release_holdout(rollout: str, services: ServicesOf, token: Operator) -> Response:
    """Let the held-out devices of a promoted rollout follow it."""
    return Answer(services.rollouts.release_holdout(rollout, token.name, role=token.role))


@router.get("/rollouts/{rollout}/devices")
def rollout_devices(
    rollout: str, services: ServicesOf, _token: Viewer, after: str = "", limit: Limit = 200
) -> Response:
    """List a rollout's devices by name: what each should do, does, and waits for."""
    return items(services.rollouts.devices(rollout, after[:64], limit))


@router.post("/rollout-plans/check")
def check_plan(body: StartRollout, services: ServicesOf, _token: Viewer) -> Response:
    """Say what a plan would do on the present fleet; nothing is started."""
    return Answer(services.rollouts.check(body.release, body.plan))


@router.get("/rollout-plans/default")
def default_plan(_token: Viewer) -> Response:
    """Show the plan that counts where nothing else is said."""
    return Answer(DEFAULT_PLAN)


def _why(body: Reason | None) -> str:
    return body.reason if body else ""


@router.get("/verdicts/{rollout}")
def verdicts(rollout: str, services: ServicesOf, _token: Viewer, limit: Limit = 200) -> Response:
    """List the newest stored verdicts of a rollout, oldest first."""
    return items(services.verdicts.of_rollout(rollout, limit))


@router.post("/verdicts/{verdict}/replay")
def replay(verdict: int, services: ServicesOf, _token: Viewer) -> Response:
    """Judge a stored verdict's inputs again."""
    return Answer(services.verdicts.replay(verdict))
