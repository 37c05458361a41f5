"""What a plan would do on the present fleet, before anybody starts it."""

from collections import Counter

import msgspec
import sqlalchemy as sa

from fleet_server.domain import cohort
from fleet_server.domain.cohort import DeviceFacts
from fleet_server.services import stages
from fleet_server.services.contracts import Agreement
from fleet_server.services.stages import Course
from fleet_server.storage import devices


class StageForecast(msgspec.Struct, frozen=True, kw_only=True):
    """One stage."""

    kind: str
    size: str
    devices: dict[str, int]
    """Role -> devices."""
    strata: dict[str, dict[str, int]]
    """Stratum -> role -> devices; roles of devices that take part only."""
    min_seconds: float
    approvals: int


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """A plan on the present fleet."""

    release: str
    incumbent: str | None
    devices: int
    """That take part."""
    left_out: dict[str, int]
    """Why -> devices that do not."""
    stages: list[StageForecast]
    shortest_seconds: float
    """If nothing has to be waited for but the stages' minimum times."""
    warnings: list[str]


def of(connection: sa.Connection, course: Course, agreed: Agreement) -> Forecast:
    """Look ahead."""
    fleet = stages.eligible(connection, course)
    facts = stages.facts_of(course, fleet)
    made = [_stage(course, place, facts) for place in range(len(course.stages))]
    return Forecast(
        release=course.candidate.ref.name,
        incumbent=course.incumbent.ref.name if course.incumbent else None,
        devices=len(fleet),
        left_out=_left_out(connection, course, {device.device for device in fleet}),
        stages=made,
        shortest_seconds=sum(stage.min_seconds for stage in made),
        warnings=[*_warnings(course, made), *_unasked(agreed)],
    )


def _stage(course: Course, place: int, facts: list[DeviceFacts]) -> StageForecast:
    stage, strata = course.stages[place], course.plan.strata
    roles = cohort.assign(
        facts, stage, salt=course.row.salt, strata=strata, holdout=course.plan.holdout
    )
    slices = {one.device: one.slices for one in facts}
    by_stratum: dict[str, Counter[str]] = {}
    for device, role in roles.items():
        name = ",".join(f"{key}={slices[device].get(key, '')}" for key in strata) or "all"
        if role != "none":
            by_stratum.setdefault(name, Counter())[role] += 1
    return StageForecast(
        kind=stage.kind,
        size=stage.size,
        devices=dict(Counter(roles.values())),
        strata={name: dict(counts) for name, counts in sorted(by_stratum.items())},
        min_seconds=stage.min_seconds,
        approvals=stage.approvals,
    )


def _left_out(connection: sa.Connection, course: Course, taking: set[str]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for device in devices.every(connection):
        if device.device in taking:
            continue
        if device.retired:
            found["retired"] += 1
        elif device.target not in course.candidate.targets:
            found[f"target {device.target or 'not told'} has no variant"] += 1
        else:
            found["another model, another rollout, or not in the group"] += 1
    return dict(found)


def _warnings(course: Course, made: list[StageForecast]) -> list[str]:
    told = []
    for stage, planned in zip(made, course.stages, strict=True):
        chosen = stage.devices.get("candidate", 0) + stage.devices.get("shadow", 0)
        if chosen < planned.min_devices:
            told.append(
                f"stage {stage.kind} chooses {chosen} devices and waits for "
                f"{planned.min_devices}: it would never pass"
            )
        if stage.kind != "shadow" and course.incumbent and not stage.devices.get("control"):
            told.append(f"stage {stage.kind} has no control to compare with")
    return told


def _unasked(agreed: Agreement) -> list[str]:
    """Users that nobody declared: nothing waits for them."""
    if not agreed.undeclared:
        return []
    names = ", ".join(agreed.undeclared)
    does = "breaks its output" if agreed.breaks else "keeps its output"
    return [f"used by {names}, which nobody declared; the release {does}"]
