"""Queries on what was done about drift alerts, and what is done without asking."""

from typing import Any

import msgspec
import sqlalchemy as sa

from fleet_server.storage.rows import record
from fleet_server.storage.tables import drift_policies, drift_responses
from fleet_server.storage.upsert import insert


class StoredResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody, or a policy, did about an alert."""

    response: int
    alert: int
    model: str
    action: str
    reason: str
    detail: dict[str, Any]
    at_ms: int
    by: str


class StoredPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Kinds of drift at which a model's devices let their baseline answer by themselves."""

    model: str
    fallback: list[str]
    set_ms: int
    set_by: str


def add(connection: sa.Connection, row: StoredResponse) -> StoredResponse:
    """Store a response; returns it with its number."""
    values = msgspec.structs.asdict(row)
    del values["response"]
    query = drift_responses.insert().values(values).returning(drift_responses.c.response)
    return msgspec.structs.replace(row, response=int(connection.execute(query).scalar_one()))


def of_alert(connection: sa.Connection, alert: int) -> list[StoredResponse]:
    """What was done about an alert, oldest first."""
    query = (
        sa.select(drift_responses)
        .where(drift_responses.c.alert == alert)
        .order_by(drift_responses.c.response)
    )
    return [record(row, StoredResponse) for row in connection.execute(query).mappings()]


def policies(connection: sa.Connection) -> list[StoredPolicy]:
    """Every model's policy."""
    query = sa.select(drift_policies).order_by(drift_policies.c.model)
    return [record(row, StoredPolicy) for row in connection.execute(query).mappings()]


def put_policy(connection: sa.Connection, row: StoredPolicy) -> None:
    """Set a model's policy."""
    values = msgspec.structs.asdict(row)
    connection.execute(
        insert(connection, drift_policies)
        .values(**values)
        .on_conflict_do_update(index_elements=["model"], set_=values)
    )


def drop_policy(connection: sa.Connection, model: str) -> bool:
    """Remove a model's policy; whether there was one."""
    done = connection.execute(drift_policies.delete().where(drift_policies.c.model == model))
    return bool(done.rowcount)
