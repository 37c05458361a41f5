"""How rollouts and verdicts are shown."""

from typing import Any

import msgspec
import sqlalchemy as sa

from fleet_server.domain import plan as plans
from fleet_server.domain.rollout import needed_approvals
from fleet_server.storage import releases, rollouts
from fleet_server.storage.rollouts import StoredApproval, StoredRollout, StoredVerdict


class StageView(msgspec.Struct, frozen=True, kw_only=True):
    """One stage that was begun."""

    kind: str
    size: str
    """Share of the fleet or number of devices, in words."""
    started_ms: int
    ended_ms: int | None
    outcome: str | None
    verdict: int | None
    devices: dict[str, int]
    """Role -> number of devices."""


class ApprovalsView(msgspec.Struct, frozen=True, kw_only=True):
    """What waits for people."""

    before: str
    """Kind of the stage that waits, or ``whole fleet``."""
    needed: int
    given: list[StoredApproval]


class RolloutView(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout."""

    rollout: str
    release: str
    model: str
    digest: str
    incumbent: str | None
    incumbent_digest: str | None
    state: str
    reason: str
    created_ms: int
    created_by: str
    finished_ms: int | None
    seconds: float | None
    """From start to end; none while it runs."""
    planned_stages: list[dict[str, Any]]
    stages: list[StageView]
    latest: dict[str, Any] | None
    """The newest verdict: decision, reason, evidence."""
    latest_ms: int | None
    decided_by: int | None
    approvals: ApprovalsView | None
    """None where nothing waits for people."""
    plan: dict[str, Any]


class VerdictView(msgspec.Struct, frozen=True, kw_only=True):
    """One stored verdict."""

    verdict: int
    rollout: str
    stage: int
    stage_kind: str
    at_ms: int
    decision: str
    reason: str
    evidence: list[dict[str, Any]]


def rollout_view(connection: sa.Connection, row: StoredRollout) -> RolloutView:
    """Show a rollout with the stages that were begun."""
    names = releases.names(connection)
    plan = plans.parse(row.plan)
    planned = plans.stages_for(plan, has_incumbent=row.incumbent is not None)
    counts = rollouts.role_counts(connection, row.rollout)
    stages = [
        StageView(
            kind=planned[stage.stage].kind,
            size=planned[stage.stage].size,
            started_ms=stage.started_ms,
            ended_ms=stage.ended_ms,
            outcome=stage.outcome,
            verdict=stage.verdict,
            devices=counts.get(stage.stage, {}),
        )
        for stage in rollouts.stages_of(connection, row.rollout)
    ]
    took = None if row.finished_ms is None else (row.finished_ms - row.created_ms) / 1000
    return RolloutView(
        rollout=row.rollout,
        release=names.get(row.digest, row.digest),
        model=row.model,
        digest=row.digest,
        incumbent=None if row.incumbent is None else names.get(row.incumbent, row.incumbent),
        incumbent_digest=row.incumbent,
        state=row.state,
        reason=row.reason,
        created_ms=row.created_ms,
        created_by=row.created_by,
        finished_ms=row.finished_ms,
        seconds=took,
        planned_stages=[{**msgspec.to_builtins(stage), "size": stage.size} for stage in planned],
        stages=stages,
        latest=None if row.latest is None else msgspec.json.decode(row.latest),
        latest_ms=row.latest_ms,
        decided_by=row.decided_by,
        approvals=_approvals(connection, row, plan, planned),
        plan=msgspec.to_builtins(plan),
    )


def _approvals(
    connection: sa.Connection, row: StoredRollout, plan: plans.Plan, planned: list[plans.Stage]
) -> ApprovalsView | None:
    if row.state != "needs_approval":
        return None
    begun = rollouts.has_begun(connection, row.rollout, row.stage)
    following = row.stage + 1 if begun else row.stage
    return ApprovalsView(
        before=planned[following].kind if following < len(planned) else "whole fleet",
        needed=needed_approvals(plan, planned, following),
        given=rollouts.approvals_of(connection, row.rollout, following),
    )


def verdict_view(row: StoredVerdict, rollout: StoredRollout) -> VerdictView:
    """Show a stored verdict with its figures."""
    plan = plans.parse(rollout.plan)
    planned = plans.stages_for(plan, has_incumbent=rollout.incumbent is not None)
    return VerdictView(
        verdict=row.verdict,
        rollout=row.rollout,
        stage=row.stage,
        stage_kind=planned[row.stage].kind,
        at_ms=row.at_ms,
        decision=row.decision,
        reason=row.reason,
        evidence=msgspec.json.decode(row.result)["evidence"],
    )
