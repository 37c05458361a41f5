"""Queries on requests to train a model again."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from fleet_server.domain.retraining import ENDED, Policy
from fleet_server.storage import keyset
from fleet_server.storage.keyset import Key
from fleet_server.storage.rows import record
from fleet_server.storage.tables import retrain_policies, retrain_requests
from fleet_server.storage.upsert import insert


class StoredRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request."""

    request: int
    model: str
    state: str
    cause: str
    reason: str
    alert: int | None = None
    automation: str
    asked_ms: int
    asked_by: str
    incumbent: str | None = None
    """Digest of what was in production when it was taken."""
    attempts: int = 0
    worker: str | None = None
    lease: str | None = None
    leased_until_ms: int | None = None
    progress: str = ""
    finished_ms: int | None = None
    outcome: str = ""
    release: str | None = None
    digest: str | None = None
    gates: list[dict[str, Any]] = []
    rollout: str | None = None


class StoredPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A model's policy, and who set it."""

    model: str
    every_days: float | None
    on_drift: bool
    cooldown_days: float
    automation: str
    set_ms: int
    set_by: str


def add(connection: sa.Connection, row: StoredRequest) -> int:
    """Store a new request; returns its number."""
    values = msgspec.structs.asdict(row)
    del values["request"]
    query = retrain_requests.insert().values(values).returning(retrain_requests.c.request)
    return int(connection.execute(query).scalar_one())


def change(connection: sa.Connection, row: StoredRequest) -> None:
    """Replace a request by its changed self."""
    values = msgspec.structs.asdict(row)
    connection.execute(
        retrain_requests.update().where(retrain_requests.c.request == row.request).values(values)
    )


def one(connection: sa.Connection, number: int) -> StoredRequest | None:
    """One request; none where there is none."""
    query = sa.select(retrain_requests).where(retrain_requests.c.request == number)
    row = connection.execute(query).mappings().first()
    return None if row is None else record(row, StoredRequest)


def latest(connection: sa.Connection, limit: int, before: int | None = None) -> list[StoredRequest]:
    """Requests, newest first, of those before a number."""
    keys = [Key(retrain_requests.c.request, descending=True)]
    place = None if before is None else [before]
    query = keyset.part(sa.select(retrain_requests), keys, place, limit)
    return [record(row, StoredRequest) for row in connection.execute(query).mappings()]


def of_model(connection: sa.Connection, model: str) -> list[StoredRequest]:
    """A model's requests, newest first."""
    query = (
        sa.select(retrain_requests)
        .where(retrain_requests.c.model == model)
        .order_by(retrain_requests.c.request.desc())
    )
    return [record(row, StoredRequest) for row in connection.execute(query).mappings()]


def in_states(connection: sa.Connection, states: Collection[str]) -> list[StoredRequest]:
    """Requests in some states, oldest first."""
    query = (
        sa.select(retrain_requests)
        .where(retrain_requests.c.state.in_(sorted(states)))
        .order_by(retrain_requests.c.request)
    )
    return [record(row, StoredRequest) for row in connection.execute(query).mappings()]


def next_open(connection: sa.Connection, models: Sequence[str]) -> StoredRequest | None:
    """The oldest open request for one of these models."""
    query = (
        sa.select(retrain_requests)
        .where(retrain_requests.c.state == "open", retrain_requests.c.model.in_(models))
        .order_by(retrain_requests.c.request)
        .limit(1)
    )
    row = connection.execute(query).mappings().first()
    return None if row is None else record(row, StoredRequest)


def unfinished(connection: sa.Connection, model: str) -> bool:
    """Whether a request for a model has not ended."""
    query = sa.select(retrain_requests.c.request).where(
        retrain_requests.c.model == model, retrain_requests.c.state.not_in(sorted(ENDED))
    )
    return connection.execute(query.limit(1)).first() is not None


def last_ms(connection: sa.Connection, model: str) -> int | None:
    """When a model's newest request was made or ended."""
    r = retrain_requests.c
    query = sa.select(r.asked_ms, r.finished_ms).where(r.model == model).order_by(r.request.desc())
    row = connection.execute(query.limit(1)).first()
    return None if row is None else max(row.asked_ms, row.finished_ms or 0)


def policies(connection: sa.Connection) -> list[StoredPolicy]:
    """Every policy by model."""
    query = sa.select(retrain_policies).order_by(retrain_policies.c.model)
    return [record(row, StoredPolicy) for row in connection.execute(query).mappings()]


def put_policy(connection: sa.Connection, policy: Policy, at_ms: int, by: str) -> None:
    """Insert or replace a model's policy."""
    values = msgspec.structs.asdict(policy) | {"set_ms": at_ms, "set_by": by}
    connection.execute(
        insert(connection, retrain_policies)
        .values(values)
        .on_conflict_do_update(index_elements=["model"], set_=values)
    )


def drop_policy(connection: sa.Connection, model: str) -> bool:
    """Remove a model's policy; whether there was one."""
    done = connection.execute(retrain_policies.delete().where(retrain_policies.c.model == model))
    return bool(done.rowcount)
