"""Queries on rollouts, their stages, assignments and verdicts."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from fleet_server.storage import bulk, keyset
from fleet_server.storage.keyset import Key
from fleet_server.storage.rows import record
from fleet_server.storage.tables import approvals, assignments, rollouts, stages, verdicts
from fleet_server.storage.upsert import insert

FAST = 1
"""Inputs of a verdict over a large fleet are megabytes, and a decision waits for them."""


class StoredRollout(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout as it stands."""

    rollout: str
    model: str
    digest: str
    incumbent: str | None
    plan: bytes
    salt: str
    state: str
    stage: int
    stage_started_ms: int
    deadline_from_ms: int
    """When it last moved."""
    created_ms: int
    created_by: str
    finished_ms: int | None = None
    reason: str = ""
    latest: bytes | None = None
    latest_ms: int | None = None
    decided_by: int | None = None


class StoredStage(msgspec.Struct, frozen=True, kw_only=True):
    """One stage that was begun."""

    rollout: str
    stage: int
    started_ms: int
    ended_ms: int | None = None
    outcome: str | None = None
    verdict: int | None = None


class StoredApproval(msgspec.Struct, frozen=True, kw_only=True):
    """One person's word that a stage may begin."""

    rollout: str
    stage: int
    person: str
    at_ms: int
    note: str


class StoredVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One verdict; ``result`` is JSON."""

    verdict: int
    rollout: str
    stage: int
    at_ms: int
    decision: str
    reason: str
    result: bytes


class StoredInputs(msgspec.Struct, frozen=True, kw_only=True):
    """What a verdict was judged from and what came out, both as JSON."""

    inputs: bytes
    result: bytes


_VERDICT_COLUMNS = [verdicts.c[name] for name in StoredVerdict.__struct_fields__]


def add(connection: sa.Connection, row: StoredRollout) -> None:
    """Store a new rollout."""
    connection.execute(rollouts.insert().values(msgspec.structs.asdict(row)))


def change(connection: sa.Connection, rollout: str, **values: Any) -> None:
    """Set columns of a rollout."""
    connection.execute(rollouts.update().where(rollouts.c.rollout == rollout).values(**values))


def one(connection: sa.Connection, rollout: str) -> StoredRollout | None:
    """One rollout; none where it is not known."""
    query = sa.select(rollouts).where(rollouts.c.rollout == rollout)
    row = connection.execute(query).mappings().first()
    return None if row is None else record(row, StoredRollout)


def latest(
    connection: sa.Connection, limit: int, after: tuple[int, str] | None = None
) -> list[StoredRollout]:
    """Rollouts, newest first; ``after`` are one's time of creation and name."""
    keys = (
        Key(rollouts.c.created_ms, descending=True),
        Key(rollouts.c.rollout, descending=True),
    )
    query = keyset.part(sa.select(rollouts), keys, after, limit)
    return [record(row, StoredRollout) for row in connection.execute(query).mappings()]


def unfinished(connection: sa.Connection) -> list[StoredRollout]:
    """Rollouts that have not ended, oldest first."""
    query = (
        sa.select(rollouts).where(rollouts.c.finished_ms.is_(None)).order_by(rollouts.c.created_ms)
    )
    return [record(row, StoredRollout) for row in connection.execute(query).mappings()]


def count(connection: sa.Connection) -> int:
    """How many rollouts there ever were."""
    return int(connection.execute(sa.select(sa.func.count()).select_from(rollouts)).scalar_one())


def put_stage(connection: sa.Connection, row: StoredStage) -> None:
    """Store a stage that begins."""
    values = msgspec.structs.asdict(row)
    connection.execute(
        insert(connection, stages)
        .values(values)
        .on_conflict_do_update(index_elements=["rollout", "stage"], set_=values)
    )


def end_stage(
    connection: sa.Connection, rollout: str, at_ms: int, outcome: str, verdict: int | None
) -> None:
    """End the stage of a rollout that has not ended."""
    connection.execute(
        stages.update()
        .where(stages.c.rollout == rollout, stages.c.ended_ms.is_(None))
        .values(ended_ms=at_ms, outcome=outcome, verdict=verdict)
    )


def stages_of(connection: sa.Connection, rollout: str) -> list[StoredStage]:
    """Stages that were begun, in order."""
    query = sa.select(stages).where(stages.c.rollout == rollout).order_by(stages.c.stage)
    return [record(row, StoredStage) for row in connection.execute(query).mappings()]


def assign(
    connection: sa.Connection, rollout: str, stage: int, roles: Mapping[str, str], at_ms: int
) -> None:
    """Store devices' roles in a stage."""
    rows = [
        {"rollout": rollout, "stage": stage, "device": device, "role": role, "since_ms": at_ms}
        for device, role in roles.items()
    ]
    bulk.put(connection, assignments, rows)


def roles_of(
    connection: sa.Connection, rollout: str, stage: int, names: Sequence[str]
) -> dict[str, str]:
    """Device -> role in one stage, of some devices."""
    found: dict[str, str] = {}
    for part in bulk.chunks(names, bulk.AT_ONCE):
        query = sa.select(assignments.c.device, assignments.c.role).where(
            assignments.c.rollout == rollout,
            assignments.c.stage == stage,
            assignments.c.device.in_(part),
        )
        found |= {row.device: row.role for row in connection.execute(query)}
    return found


def roles(connection: sa.Connection, rollout: str, stage: int) -> dict[str, str]:
    """Device -> role in one stage."""
    query = sa.select(assignments.c.device, assignments.c.role).where(
        assignments.c.rollout == rollout, assignments.c.stage == stage
    )
    return {row[0]: row[1] for row in connection.execute(query).fetchall()}


def everyone(connection: sa.Connection, rollout: str) -> set[str]:
    """Devices that have a role in any stage."""
    query = sa.select(assignments.c.device).where(assignments.c.rollout == rollout).distinct()
    return set(connection.execute(query).scalars())


def has_begun(connection: sa.Connection, rollout: str, stage: int) -> bool:
    """Whether a stage was begun."""
    query = sa.select(stages.c.stage).where(stages.c.rollout == rollout, stages.c.stage == stage)
    return connection.execute(query).first() is not None


def approve(
    connection: sa.Connection, rollout: str, stage: int, person: str, at_ms: int, note: str
) -> bool:
    """Note that a person approves a stage; whether that is new."""
    query = insert(connection, approvals).values(
        rollout=rollout, stage=stage, person=person, at_ms=at_ms, note=note
    )
    return bool(connection.execute(query.on_conflict_do_nothing()).rowcount)


def approvals_of(connection: sa.Connection, rollout: str, stage: int) -> list[StoredApproval]:
    """Who approved a stage, in the order in which they did."""
    query = (
        sa.select(approvals)
        .where(approvals.c.rollout == rollout, approvals.c.stage == stage)
        .order_by(approvals.c.at_ms, approvals.c.person)
    )
    return [record(row, StoredApproval) for row in connection.execute(query).mappings()]


def release_holdout(connection: sa.Connection, rollout: str) -> list[str]:
    """Give the held-out devices of a rollout no role any more; their names."""
    held = (assignments.c.rollout == rollout, assignments.c.role == "holdout")
    names = connection.execute(sa.select(assignments.c.device).where(*held).distinct())
    found = sorted(names.scalars())
    connection.execute(assignments.update().where(*held).values(role="none"))
    return found


def role_counts(connection: sa.Connection, rollout: str) -> dict[int, dict[str, int]]:
    """Stage -> role -> number of devices."""
    query = (
        sa.select(assignments.c.stage, assignments.c.role, sa.func.count())
        .where(assignments.c.rollout == rollout)
        .group_by(assignments.c.stage, assignments.c.role)
        .order_by(assignments.c.stage, assignments.c.role)
    )
    found: dict[int, dict[str, int]] = {}
    for stage, role, number in connection.execute(query):
        found.setdefault(stage, {})[role] = number
    return found


def add_verdict(
    connection: sa.Connection,
    rollout: str,
    stage: int,
    at_ms: int,
    decision: str,
    reason: str,
    inputs: bytes,
    result: bytes,
) -> int:
    """Store a verdict; returns its number."""
    query = (
        verdicts.insert()
        .values(
            rollout=rollout,
            stage=stage,
            at_ms=at_ms,
            decision=decision,
            reason=reason,
            inputs=zlib.compress(inputs, FAST),
            result=result,
        )
        .returning(verdicts.c.verdict)
    )
    return int(connection.execute(query).scalar_one())


def inputs(connection: sa.Connection, number: int) -> StoredInputs | None:
    """What one verdict was judged from; large, so it is read for no other purpose."""
    query = sa.select(verdicts.c.inputs, verdicts.c.result).where(verdicts.c.verdict == number)
    row = connection.execute(query).first()
    if row is None:
        return None
    return StoredInputs(inputs=zlib.decompress(row.inputs), result=row.result)


def last_verdict_ms(connection: sa.Connection, rollout: str, stage: int) -> int | None:
    """When the newest stored verdict of a stage was made."""
    query = sa.select(sa.func.max(verdicts.c.at_ms)).where(
        verdicts.c.rollout == rollout, verdicts.c.stage == stage
    )
    found: int | None = connection.execute(query).scalar()
    return found


def verdicts_of(
    connection: sa.Connection, rollout: str, limit: int, before: int | None = None
) -> list[StoredVerdict]:
    """Stored verdicts of a rollout, newest first, of those before a number."""
    query = sa.select(*_VERDICT_COLUMNS).where(verdicts.c.rollout == rollout)
    keys = [Key(verdicts.c.verdict, descending=True)]
    query = keyset.part(query, keys, None if before is None else [before], limit)
    return [record(row, StoredVerdict) for row in connection.execute(query).mappings()]


def held_out(model: str) -> sa.Select[tuple[str]]:
    """Devices that the newest rollout of a model holds out."""
    newest = (
        sa.select(rollouts.c.rollout)
        .where(rollouts.c.model == model)
        .order_by(rollouts.c.created_ms.desc(), rollouts.c.rollout.desc())
        .limit(1)
        .scalar_subquery()
    )
    return sa.select(assignments.c.device).where(
        assignments.c.rollout == newest, assignments.c.role == "holdout"
    )


def holds_out(connection: sa.Connection, model: str, device: str) -> bool:
    """Whether a device is held out of a model's rollouts."""
    query = held_out(model).where(assignments.c.device == device).limit(1)
    return connection.execute(query).first() is not None
