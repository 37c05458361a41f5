"""Rollouts and their verdicts."""

from fastapi import APIRouter, Request, Response

from fleet_server.api import answers
from fleet_server.api.access import Approver, Operator, ServicesOf, Viewer
from fleet_server.api.paging import Cursor, Limit, Number, page, place_of
from fleet_server.api.schemas import Answer, Reason, StartRollout
from fleet_server.api.scopes import names_models, within
from fleet_server.domain.plan import DEFAULT_PLAN, Plan
from fleet_server.services.forecast import Forecast
from fleet_server.services.rollout_devices import RolloutDevice
from fleet_server.services.rollout_views import RolloutView, VerdictView
from fleet_server.services.verdicts import Replay

router = APIRouter(default_response_class=Answer)


@router.get("/rollouts")
@answers.part(RolloutView)
def rollouts(
    request: Request,
    services: ServicesOf,
    _token: Viewer,
    cursor: Cursor = None,
    limit: Limit = 200,
) -> Response:
    """List rollouts, newest first."""
    found = services.rollouts.every(limit + 1, place_of(cursor, tuple[int, str]))
    return page(request, found, limit, lambda rollout: (rollout.created_ms, rollout.rollout))


@router.post("/rollouts", status_code=201)
@answers.one(RolloutView)
@names_models
def start_rollout(body: StartRollout, services: ServicesOf, token: Operator) -> Response:
    """Start a rollout of an approved release."""
    within(token, [body.release.partition("@")[0]])
    started = services.rollouts.start(
        body.release, body.plan, token.name, role=token.role, supersede=body.supersede
    )
    return Answer(started, status_code=201)


@router.get("/rollouts/{rollout}")
@answers.one(RolloutView)
def rollout(rollout: str, services: ServicesOf, _token: Viewer) -> Response:
    """Show one rollout with its stages and newest verdict."""
    return Answer(services.rollouts.one(rollout))


@router.post("/rollouts/{rollout}/pause")
@answers.one(RolloutView)
def pause(
    rollout: str, services: ServicesOf, token: Operator, body: Reason | None = None
) -> Response:
    """Hold a rollout where it is."""
    return Answer(services.rollouts.pause(rollout, token.name, _why(body), role=token.role))


@router.post("/rollouts/{rollout}/resume")
@answers.one(RolloutView)
def resume(
    rollout: str, services: ServicesOf, token: Operator, body: Reason | None = None
) -> Response:
    """Go on with a paused rollout."""
    return Answer(services.rollouts.resume(rollout, token.name, _why(body), role=token.role))


@router.post("/rollouts/{rollout}/rollback")
@answers.one(RolloutView)
def rollback(
    rollout: str, services: ServicesOf, token: Operator, body: Reason | None = None
) -> Response:
    """Put every device of a rollout back on the release it had before."""
    return Answer(services.rollouts.roll_back(rollout, token.name, _why(body), role=token.role))


@router.post("/rollouts/{rollout}/abort")
@answers.one(RolloutView)
def abort(
    rollout: str, services: ServicesOf, token: Operator, body: Reason | None = None
) -> Response:
    """End a rollout where it is: devices that run the candidate keep it."""
    return Answer(services.rollouts.abort(rollout, token.name, _why(body), role=token.role))


@router.post("/rollouts/{rollout}/approvals", status_code=201)
@answers.one(RolloutView)
def approve(
    rollout: str, services: ServicesOf, token: Approver, body: Reason | None = None
) -> Response:
    """Approve what follows the present stage; whoever started the rollout may not."""
    approved = services.rollouts.approve(rollout, token.name, _why(body), role=token.role)
    return Answer(approved, status_code=201)


@router.post("/rollouts/{rollout}/release-holdout")
@answers.one(RolloutView)
def release_holdout(rollout: str, services: ServicesOf, token: Operator) -> Response:
    """Let the held-out devices of a promoted rollout follow it."""
    return Answer(services.rollouts.release_holdout(rollout, token.name, role=token.role))


@router.get("/rollouts/{rollout}/devices")
@answers.part(RolloutDevice)
def rollout_devices(
    rollout: str,
    request: Request,
    services: ServicesOf,
    _token: Viewer,
    cursor: Cursor = None,
    limit: Limit = 200,
) -> Response:
    """List a rollout's devices by name: what each should do, does, and waits for."""
    found = services.rollouts.devices(rollout, place_of(cursor, str) or "", limit + 1)
    return page(request, found, limit, lambda device: device.device)


@router.post("/rollout-plans/check")
@answers.one(Forecast)
def check_plan(body: StartRollout, services: ServicesOf, _token: Viewer) -> Response:
    """Say what a plan would do on the present fleet; nothing is started."""
    return Answer(services.rollouts.check(body.release, body.plan))


@router.get("/rollout-plans/default")
@answers.one(Plan)
def default_plan(_token: Viewer) -> Response:
    """Show the plan that counts where nothing else is said."""
    return Answer(DEFAULT_PLAN)


def _why(body: Reason | None) -> str:
    return body.reason if body else ""


@router.get("/verdicts/{rollout}")
@answers.part(VerdictView)
def verdicts(
    rollout: str,
    request: Request,
    services: ServicesOf,
    _token: Viewer,
    cursor: Cursor = None,
    limit: Limit = 200,
) -> Response:
    """List the stored verdicts of a rollout, newest first."""
    found = services.verdicts.of_rollout(rollout, limit + 1, place_of(cursor, int))
    return page(request, found, limit, lambda verdict: verdict.verdict)


@router.post("/verdicts/{verdict}/replay")
@answers.one(Replay)
def replay(verdict: Number, services: ServicesOf, _token: Viewer) -> Response:
    """Judge a stored verdict's inputs again."""
    return Answer(services.verdicts.replay(verdict))
