"""One rollout's course: places devices, judges, and moves from stage to stage.

Every function works inside the caller's transaction, so what is judged, stored and ordered is one
consistent step; a server that is killed in between finds the step done or not begun.
"""

from collections import Counter
from typing import Self

import msgspec
import sqlalchemy as sa

from edge_core.release import ReleaseRef
from fleet_server.domain import cohort, pacing
from fleet_server.domain import plan as plans
from fleet_server.domain import rollout as table
from fleet_server.domain.cohort import DeviceFacts, Role
from fleet_server.domain.evidence import Member
from fleet_server.domain.pacing import Waiting
from fleet_server.domain.plan import Plan, Stage
from fleet_server.domain.rollout import FINISHED, Event, State, Transition
from fleet_server.domain.verdict import judge
from fleet_server.services import desired, evidence, groups, standing, verdicts
from fleet_server.services.catalog import Release
from fleet_server.services.desired import Wanted
from fleet_server.services.verdicts import Inputs
from fleet_server.services.whole_fleet import WholeFleet
from fleet_server.storage import journal, releases, rollouts
from fleet_server.storage.devices import Device
from fleet_server.storage.releases import InProduction
from fleet_server.storage.rollouts import StoredRollout, StoredStage

ROLLBACK = "rollback"
ATTENTION = "rollout"
JUDGED = ("running", "paused", "inconclusive", "needs_approval")


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout with what it needs to go on."""

    row: StoredRollout
    plan: Plan
    stages: list[Stage]
    candidate: Release
    incumbent: Release | None
    now_ms: int
    whole: WholeFleet
    """As the transaction sees it that the course is gone in."""

    @classmethod
    def of(
        cls, row: StoredRollout, candidate: Release, incumbent: Release | None, now_ms: int
    ) -> Self:
        """Read the plan of a stored rollout."""
        plan = plans.parse(row.plan)
        chosen = plans.stages_for(plan, has_incumbent=row.incumbent is not None)
        return cls(
            row=row,
            plan=plan,
            stages=chosen,
            candidate=candidate,
            incumbent=incumbent,
            now_ms=now_ms,
            whole=WholeFleet(),
        )

    @property
    def stage(self) -> Stage:
        """The present stage's rules."""
        return self.stages[self.row.stage]

    @property
    def state(self) -> State:
        """The present state."""
        return table.known(self.row.state)

    @property
    def noisy(self) -> bool:
        """Whether outcomes of either release carry noise."""
        known = [self.candidate, *([self.incumbent] if self.incumbent else [])]
        return any(release.window_schema.epsilon is not None for release in known)

    @property
    def name(self) -> str:
        """``model@version`` of the candidate."""
        return self.candidate.ref.name


def eligible(connection: sa.Connection, course: Course) -> list[Device]:
    """Devices that the candidate has a variant for and that run nothing of another model.

    One that another rollout has taken stays with it until that has ended, or the two would undo
    each other's orders for ever.
    """
    ours = {ref.digest for ref in _of_model(connection, course.row.model)}
    wanted = course.whole.desired(connection)
    others = {row.rollout for row in rollouts.unfinished(connection)} - {course.row.rollout}

    group, taken = _group(connection, course)

    def fits(device: Device) -> bool:
        wish = wanted.get(device.device)
        if device.retired or (wish is not None and wish.rollout in others):
            return False
        if group is not None and device.device not in group | taken:
            return False
        present = wish.active if wish is not None else device.active
        return device.target in course.candidate.targets and (present is None or present in ours)

    return [device for device in course.whole.devices(connection) if fits(device)]


def _group(connection: sa.Connection, course: Course) -> tuple[set[str] | None, set[str]]:
    """Devices of the plan's group now, none where all take part, and those that have a role.

    A device that leaves the group stays in a rollout that has taken it.
    """
    if not course.plan.group:
        return None, set()
    meant = groups.members(connection, course.plan.group, course.now_ms)
    return meant, rollouts.everyone(connection, course.row.rollout)


def close_older(connection: sa.Connection, row: StoredRollout, now_ms: int) -> None:
    """Close what earlier rollouts of the model left for a person: now another order stands."""
    for alert in journal.open_alerts(connection, ATTENTION):
        if alert.detail.get("model") == row.model:
            journal.close_alert(connection, now_ms, ATTENTION, alert.subject)


def begin(connection: sa.Connection, course: Course, now_ms: int) -> None:
    """Begin the present stage: draw roles and write what each device should run."""
    row = course.row
    rollouts.put_stage(
        connection, StoredStage(rollout=row.rollout, stage=row.stage, started_ms=now_ms)
    )
    fleet = eligible(connection, course)
    _assign(connection, course, fleet, now_ms)
    roles = rollouts.role_counts(connection, row.rollout).get(row.stage, {})
    counts = ", ".join(f"{count} {role}" for role, count in sorted(roles.items()) if role != "none")
    text = f"stage {course.stage.kind} ({course.stage.size}) begins: {counts or 'no device'}"
    journal.add_event(connection, now_ms, "rollout", course.name, text)
    order(connection, course, fleet, now_ms)


def order(connection: sa.Connection, course: Course, fleet: list[Device], now_ms: int) -> None:
    """Write what each device should run in the present state, where it differs and may change.

    What another rollout has taken over is its own to order.
    """
    if course.state == "superseded":
        return
    wanted = _wishes(connection, course, fleet)
    held = _held_back(connection, course, fleet, wanted, now_ms)
    free = {name: wish for name, wish in wanted.items() if name not in held}
    stored = course.whole.desired(connection)
    course.whole.ordered(desired.want(connection, free, fleet, now_ms, stored))


def waiting(connection: sa.Connection, course: Course, now_ms: int) -> dict[str, str]:
    """Device -> why it is not given its new release now."""
    fleet = eligible(connection, course)
    wanted = _wishes(connection, course, fleet)
    return _held_back(connection, course, fleet, wanted, now_ms)


def _wishes(connection: sa.Connection, course: Course, fleet: list[Device]) -> dict[str, Wanted]:
    roles = course.whole.roles(connection, course.row.rollout, course.row.stage)
    digest, of_kind = course.row.digest, dict[tuple[str, bool], Wanted]()
    wanted = {}
    for device in fleet:
        kind = roles.get(device.device, "none"), device.active == digest
        if kind not in of_kind:
            of_kind[kind] = _wish(course, *kind)
        wanted[device.device] = of_kind[kind]
    return wanted


def _wish(course: Course, role: str, runs_candidate: bool) -> Wanted:
    wish = table.wanted(
        state=course.state,
        stage=course.stage,
        role=msgspec.convert(role, Role),
        candidate=course.candidate.ref,
        incumbent=course.incumbent.ref if course.incumbent else None,
        runs_candidate=runs_candidate,
    )
    return Wanted(
        active=_digest(wish.active),
        shadow=_digest(wish.shadow),
        arm=wish.arm,
        rollout=None if course.state in FINISHED else course.row.rollout,
    )


def _held_back(
    connection: sa.Connection,
    course: Course,
    fleet: list[Device],
    wanted: dict[str, Wanted],
    now_ms: int,
) -> dict[str, str]:
    """Device -> why it has to wait for the candidate; going back waits for nothing."""
    plan, digest = course.plan, course.row.digest
    if plan.disruption is None and not plan.maintenance:
        return {}
    stored = course.whole.desired(connection)
    coming: list[Waiting] = []
    places: Counter[str] = Counter()
    for device in fleet:
        if plan.disruption is not None:
            places[pacing.place_of(plan.disruption, device.site, device.slices)] += 1
        wish, have = wanted[device.device], stored.get(device.device)
        new = digest in (wish.active, wish.shadow)
        given = have is not None and digest in (have.active, have.shadow)
        changes = new and (have is None or (have.active, have.shadow) != (wish.active, wish.shadow))
        changing = given and not evidence.settled(device, have)
        if changing or changes:
            coming.append(Waiting(device.device, device.site, device.slices, changing))
    return pacing.held_back(plan, coming, places, pacing.moment(now_ms))


def advance(connection: sa.Connection, course: Course, now_ms: int, heard_since_ms: int) -> None:
    """Place new devices, judge the stage, and move if the verdict or the devices say so.

    What happened before ``heard_since_ms``, when the server could hear nobody, speaks against no
    release: who gave up then is asked again, and who said nothing is not silent yet.
    """
    row = course.row
    fleet = eligible(connection, course)
    begun = rollouts.has_begun(connection, row.rollout, row.stage)
    if begun:
        _assign(connection, course, fleet, now_ms)
        order(connection, course, fleet, now_ms)
    whole, plan = course.whole, course.plan
    whole.ordered(desired.ask_again(connection, fleet, heard_since_ms, now_ms))
    whole.ordered(desired.retry(connection, fleet, plan.attempts, plan.retry_seconds, now_ms))
    members = evidence.members_of(connection, row, plan, fleet, whole, now_ms, heard_since_ms)
    inputs, verdict, number = None, None, None
    if begun and course.state in JUDGED:
        inputs = _inputs(connection, course, members, fleet, now_ms)
        verdict = judge(inputs.stage, inputs.plan, inputs.evidence)
    following = row.stage + 1 if begun else row.stage
    transition = table.step(
        state=course.state,
        stage=row.stage,
        plan=course.plan,
        stages=course.stages,
        verdict=verdict,
        members=members,
        approved=releases.listing(connection)[row.digest],
        waited_seconds=(now_ms - row.deadline_from_ms) / 1000,
        begun=begun,
        approvals=len(rollouts.approvals_of(connection, row.rollout, following)),
    )
    if inputs is not None and verdict is not None:
        moves = transition is not None
        number = verdicts.store(connection, row, inputs, verdict, now_ms, moves=moves)
        latest = msgspec.json.encode(verdict)
        rollouts.change(connection, row.rollout, latest=latest, latest_ms=now_ms)
    if transition is not None:
        move(connection, course, transition, number, now_ms)


def move(
    connection: sa.Connection,
    course: Course,
    transition: Transition,
    verdict: int | None,
    now_ms: int,
) -> None:
    """Take a transition: store it, tell it, and order what it means for the devices."""
    row, state = course.row, transition.state
    next_stage = transition.event is Event.STAGE_PASSED
    values = {
        "state": state,
        "stage": transition.stage,
        "reason": transition.reason,
        "deadline_from_ms": now_ms,
    }
    if verdict is not None:
        values["decided_by"] = verdict
    if next_stage:
        values["stage_started_ms"] = now_ms
        values["reason"] = ""
    if state in FINISHED:
        values["finished_ms"] = now_ms
        values["reason"] = row.reason or transition.reason
    if transition.event is Event.STRANDED:
        values["reason"] = f"{row.reason}; {transition.reason}"
    rollouts.change(connection, row.rollout, **values)
    outcome = _STAGE_OUTCOME.get(transition.event)
    if outcome is not None:
        rollouts.end_stage(connection, row.rollout, now_ms, outcome, verdict)
    text = f"{state.replace('_', ' ')}: {transition.reason}"
    if not next_stage:
        journal.add_event(connection, now_ms, "rollout", course.name, text, {"verdict": verdict})
    changed = rollouts.one(connection, row.rollout)
    assert changed is not None
    moved = msgspec.structs.replace(course, row=changed)
    _tell(connection, moved, transition, verdict, now_ms)
    if next_stage:
        begins = course.stages[transition.stage]
        passed = f"on to stage {begins.kind}: {transition.reason}"
        journal.add_event(connection, now_ms, "rollout", course.name, passed, {"verdict": verdict})
        begin(connection, moved, now_ms)
        return
    if state == "promoted":
        releases.put_in_production(
            connection,
            InProduction(
                model=row.model,
                digest=row.digest,
                since_ms=now_ms,
                rollout=row.rollout,
                verdict=row.decided_by,
            ),
        )
        standing.watch(connection, now_ms)
    order(connection, moved, eligible(connection, moved), now_ms)


_STAGE_OUTCOME = {
    Event.STAGE_PASSED: "promote",
    Event.LAST_PASSED: "promote",
    Event.WORSE: "rollback",
    Event.ROLL_BACK: "rollback",
    Event.NEEDS_APPROVAL: "promote",
    Event.ABORT: "aborted",
    Event.SUPERSEDE: "superseded",
}


def facts_of(course: Course, fleet: list[Device]) -> list[DeviceFacts]:
    """What cohorts are drawn by: slices that the candidate declares, and no value of any other.

    A device that names a value of its own would be a stratum of its own, and so a candidate.
    """
    declared = course.candidate.manifest.slices
    return [
        DeviceFacts(
            device=device.device,
            slices={n: v for n, v in device.slices.items() if v in declared.get(n, ())},
        )
        for device in fleet
    ]


def _assign(connection: sa.Connection, course: Course, fleet: list[Device], now_ms: int) -> None:
    """Give every device without a role in the present stage one; nobody's role changes."""
    row = course.row
    have = course.whole.roles(connection, row.rollout, row.stage)
    if all(device.device in have for device in fleet):
        return
    facts = facts_of(course, fleet)
    drawn = cohort.assign(
        facts,
        course.stage,
        salt=row.salt,
        strata=course.plan.strata,
        holdout=course.plan.holdout,
    )
    new = {device: role for device, role in drawn.items() if device not in have}
    rollouts.assign(connection, row.rollout, row.stage, new, now_ms)
    course.whole.assigned(row.rollout, row.stage, new)


def _inputs(
    connection: sa.Connection,
    course: Course,
    members: list[Member],
    fleet: list[Device],
    now_ms: int,
) -> Inputs:
    seen = evidence.gather(
        connection,
        course.row,
        course.stage.kind,
        members,
        fleet,
        course.candidate.manifest.slices,
        now_ms,
        noisy=course.noisy,
    )
    return Inputs(stage=course.stage, plan=course.plan, evidence=seen)


def _tell(
    connection: sa.Connection,
    course: Course,
    transition: Transition,
    verdict: int | None,
    now_ms: int,
) -> None:
    """Open an alert for what a person should know of."""
    row = course.row
    detail = {
        "rollout": row.rollout,
        "model": row.model,
        "release": course.name,
        "verdict": verdict,
    }
    if transition.event in (Event.WORSE, Event.ROLL_BACK):
        title = f"{course.name} is rolled back: {transition.reason}"
        journal.open_alert(connection, now_ms, ROLLBACK, row.rollout, title, detail)
    elif transition.event in (Event.DEADLINE, Event.STRANDED, Event.NEEDS_APPROVAL):
        title = f"rollout of {course.name} needs a person: {transition.reason}"
        journal.open_alert(connection, now_ms, ATTENTION, row.rollout, title, detail)
    else:
        journal.close_alert(connection, now_ms, ATTENTION, row.rollout)
    if transition.state == "rolled_back":
        journal.close_alert(connection, now_ms, ROLLBACK, row.rollout)


def _of_model(connection: sa.Connection, model: str) -> list[ReleaseRef]:
    return [ref for ref in releases.identities(connection) if ref.model == model]


def _digest(ref: ReleaseRef | None) -> str | None:
    return None if ref is None else ref.digest
