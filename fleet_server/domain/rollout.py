"""A rollout's states as one table, and what each device should run in each of them. Pure."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Literal, NamedTuple, get_args

import msgspec

from edge_core.messages.telemetry import Arm
from edge_core.release import ReleaseRef
from fleet_server.domain.cohort import Role
from fleet_server.domain.evidence import Member
from fleet_server.domain.plan import Plan, Stage
from fleet_server.domain.verdict import Verdict

State = Literal[
    "running",
    "needs_approval",
    "paused",
    "inconclusive",
    "promoting",
    "promoted",
    "rolling_back",
    "rolled_back",
    "aborted",
    "superseded",
]
STATES: Final[tuple[State, ...]] = get_args(State)
FINISHED: Final[frozenset[State]] = frozenset({"promoted", "rolled_back", "aborted", "superseded"})
REVOKED: Final = "the release is no longer approved"
MOST_NAMES = 5
"""Devices that a reason names."""


class Event(StrEnum):
    """What can happen to a rollout."""

    STAGE_PASSED = "stage_passed"
    LAST_PASSED = "last_passed"
    WORSE = "worse"
    DEADLINE = "deadline"
    CONFIRMED = "confirmed"
    STRANDED = "stranded"
    """Going back ends without some devices that can be heard."""
    NEEDS_APPROVAL = "needs_approval"
    """A stage passed, and people have to approve what follows."""
    PAUSE = "pause"
    RESUME = "resume"
    ROLL_BACK = "roll_back"
    ABORT = "abort"
    """Ends it where it is: what a device runs stays, and nobody else changes."""
    SUPERSEDE = "supersede"
    """Another rollout of the model takes over."""


REFUSED: Final = None
"""The event means nothing in that state."""

_BY_PEOPLE: Final[dict[Event, State | None]] = {
    **dict.fromkeys(Event, REFUSED),
    Event.WORSE: "rolling_back",
    Event.ROLL_BACK: "rolling_back",
    Event.ABORT: "aborted",
    Event.SUPERSEDE: "superseded",
}
"""What may happen to any rollout that has not decided yet."""

TABLE: Final[dict[State, dict[Event, State | None]]] = {
    "running": {
        **_BY_PEOPLE,
        Event.STAGE_PASSED: "running",
        Event.LAST_PASSED: "promoting",
        Event.NEEDS_APPROVAL: "needs_approval",
        Event.DEADLINE: "inconclusive",
        Event.PAUSE: "paused",
    },
    "needs_approval": {
        **_BY_PEOPLE,
        Event.STAGE_PASSED: "running",
        Event.LAST_PASSED: "promoting",
        Event.PAUSE: "paused",
    },
    "paused": {**_BY_PEOPLE, Event.RESUME: "running"},
    "inconclusive": {**_BY_PEOPLE, Event.RESUME: "running"},
    "promoting": {
        **_BY_PEOPLE,
        Event.DEADLINE: "promoting",
        Event.CONFIRMED: "promoted",
        Event.ABORT: REFUSED,
        Event.SUPERSEDE: REFUSED,
    },
    "promoted": dict.fromkeys(Event, REFUSED),
    "rolling_back": {
        **dict.fromkeys(Event, REFUSED),
        Event.CONFIRMED: "rolled_back",
        Event.STRANDED: "rolled_back",
    },
    "rolled_back": dict.fromkeys(Event, REFUSED),
    "aborted": dict.fromkeys(Event, REFUSED),
    "superseded": dict.fromkeys(Event, REFUSED),
}
"""Nothing else is remembered between steps, so after a restart every state goes on by itself."""


class Transition(NamedTuple):
    """Where a rollout goes, and why."""

    event: Event
    state: State
    stage: int
    reason: str


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What one device should run."""

    active: ReleaseRef | None
    shadow: ReleaseRef | None = None
    arm: Arm = "incumbent"


def known(stored: str) -> State:
    """The state as it was stored; one that this server does not know is rolled back."""
    return next((state for state in STATES if state == stored), "rolling_back")


def apply(state: State, event: Event) -> State | None:
    """The next state; none where the event is refused."""
    return TABLE[state][event]


def step(
    *,
    state: State,
    stage: int,
    plan: Plan,
    stages: Sequence[Stage],
    verdict: Verdict | None,
    members: Sequence[Member],
    approved: bool,
    waited_seconds: float,
    begun: bool = True,
    approvals: int = 0,
) -> Transition | None:
    """Decide whether the rollout moves now; none when it stays where it is.

    Args:
        state: the stored state.
        stage: index into ``stages``.
        plan: the rollout's rules.
        stages: the stages that this rollout goes through.
        verdict: the newest judgement of the stage, until it is left.
        members: what became of every device's order, role included.
        approved: whether the repository lists the candidate now.
        waited_seconds: time since the rollout last moved.
        begun: whether the stage has begun; the first one may wait for people.
        approvals: people who approved what follows.
    """
    following_stage = stage + 1 if begun else stage
    event, reason = _event(state, stage, plan, stages, verdict, members, waited_seconds)
    if state == "needs_approval" and event is None:
        event, reason = _approved(plan, stages, following_stage, approvals)
    elif event in (Event.STAGE_PASSED, Event.LAST_PASSED) and state == "running":
        needed = needed_approvals(plan, stages, following_stage)
        if needed:
            event, reason = Event.NEEDS_APPROVAL, f"{reason}; {_asked(needed)}"
    if not approved and apply(state, Event.WORSE) is not None:
        event, reason = Event.WORSE, REVOKED
    following = apply(state, event) if event else None
    if event is None or following is None:
        return None
    moved = following_stage if event is Event.STAGE_PASSED else stage
    return Transition(event, following, moved, reason)


def needed_approvals(plan: Plan, stages: Sequence[Stage], following: int) -> int:
    """People who have to approve before a stage, or before the whole fleet follows."""
    if following >= len(stages):
        return plan.promotion_approvals
    return stages[following].approvals


def _approved(
    plan: Plan, stages: Sequence[Stage], following: int, approvals: int
) -> tuple[Event | None, str]:
    if approvals < needed_approvals(plan, stages, following):
        return None, ""
    last = following >= len(stages)
    reason = f"approved by {approvals} of {needed_approvals(plan, stages, following)} people"
    return (Event.LAST_PASSED if last else Event.STAGE_PASSED), reason


def _asked(needed: int) -> str:
    people = "a person has" if needed == 1 else f"{needed} people have"
    return f"{people} to approve what follows"


def _event(
    state: State,
    stage: int,
    plan: Plan,
    stages: Sequence[Stage],
    verdict: Verdict | None,
    members: Sequence[Member],
    waited_seconds: float,
) -> tuple[Event | None, str]:
    if state in ("promoting", "rolling_back"):
        return _arrived(state, plan, members, waited_seconds)
    if state in FINISHED or verdict is None:
        return None, ""
    if verdict.decision == "rollback":
        return Event.WORSE, verdict.reason
    if state != "running":
        return None, ""
    if verdict.decision == "promote":
        last = stage + 1 >= len(stages)
        return (Event.LAST_PASSED if last else Event.STAGE_PASSED), verdict.reason
    if waited_seconds > plan.deadline_seconds:
        return Event.DEADLINE, f"no decision by the deadline ({verdict.reason}); a person is asked"
    return None, ""


def _arrived(
    state: State, plan: Plan, members: Sequence[Member], waited_seconds: float
) -> tuple[Event | None, str]:
    """Every device that can be heard has to confirm; silent ones get their orders later.

    The way back always ends: what cannot go back is named, and holds up nobody else.
    """
    heard = [member for member in members if not member.silent and member.role != "holdout"]
    refused = [member.device for member in heard if member.refused]
    if state == "promoting" and len(refused) > plan.max_lost_share * len(heard):
        return Event.WORSE, f"{len(refused)} of {len(heard)} devices refused the release"
    confirmed = sum(member.confirmed for member in heard)
    waiting = [m.device for m in heard if not m.confirmed and not m.refused]
    late = waited_seconds > plan.deadline_seconds
    if state == "promoting" and (waiting or not confirmed):
        asked = f"not every device runs the release by the deadline ({_names(waiting)} to come)"
        return (Event.DEADLINE, asked) if late else (None, "")
    if waiting and not late:
        return None, ""
    silent = sum(member.silent for member in members)
    failed = "refused the release" if state == "promoting" else "could not go back"
    missing = (
        (waiting, f"; not back by the deadline: {_names(waiting)}"),
        (refused, f"; {len(refused)} {failed}: {_names(refused)}"),
        (silent, f"; {silent} silent ones will follow"),
    )
    text = f"{confirmed} devices confirmed" + "".join(text for holds, text in missing if holds)
    stranded = state == "rolling_back" and (waiting or refused)
    return (Event.STRANDED if stranded else Event.CONFIRMED), text


def _names(devices: Sequence[str]) -> str:
    more = f" and {len(devices) - MOST_NAMES} more" if len(devices) > MOST_NAMES else ""
    return ", ".join(devices[:MOST_NAMES]) + more or "none"


def wanted(
    *,
    state: State,
    stage: Stage,
    role: Role,
    candidate: ReleaseRef,
    incumbent: ReleaseRef | None,
    runs_candidate: bool = False,
) -> Wanted:
    """What a device with this role should run.

    On candidate devices the incumbent stays on as shadow (ADR 0004). After an abort, a device that
    runs the candidate keeps it.
    """
    if state == "aborted":
        return Wanted(active=candidate if runs_candidate else incumbent)
    if role == "holdout":
        return Wanted(active=incumbent)
    if state in ("promoting", "promoted"):
        return Wanted(active=candidate)
    if state in ("rolling_back", "rolled_back"):
        return Wanted(active=incumbent)
    if role == "candidate":
        return Wanted(active=candidate, shadow=incumbent, arm="candidate")
    if role == "shadow" and incumbent is not None:
        return Wanted(active=incumbent, shadow=candidate)
    return Wanted(active=incumbent, arm="control" if role == "control" else "incumbent")
