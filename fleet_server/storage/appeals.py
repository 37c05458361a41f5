"""Queries on contested predictions."""

from collections import Counter
from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from fleet_server.storage import keyset
from fleet_server.storage.keyset import Key
from fleet_server.storage.rows import record
from fleet_server.storage.tables import appeals, predictions


class StoredAppeal(msgspec.Struct, frozen=True, kw_only=True):
    """One contested prediction."""

    appeal: int
    prediction: str
    state: str
    reason: str
    claimed: str | None
    contact: str
    opened_ms: int
    opened_by: str
    decision: str = ""
    label: str | None = None
    decided_ms: int | None = None
    decided_by: str | None = None
    explanation: str = ""
    """JSON; empty until there is one."""
    explained_ms: int | None = None


def add(connection: sa.Connection, row: StoredAppeal) -> int:
    """Store a new appeal; returns its number."""
    values = msgspec.structs.asdict(row)
    del values["appeal"]
    query = appeals.insert().values(values).returning(appeals.c.appeal)
    return int(connection.execute(query).scalar_one())


def change(connection: sa.Connection, row: StoredAppeal) -> None:
    """Replace an appeal by its changed self."""
    values = msgspec.structs.asdict(row)
    connection.execute(appeals.update().where(appeals.c.appeal == row.appeal).values(values))


def one(connection: sa.Connection, number: int) -> StoredAppeal | None:
    """One appeal; none where there is none."""
    query = sa.select(appeals).where(appeals.c.appeal == number)
    row = connection.execute(query).mappings().first()
    return None if row is None else record(row, StoredAppeal)


def open_on(connection: sa.Connection, prediction: str) -> StoredAppeal | None:
    """The open appeal against a prediction."""
    query = sa.select(appeals).where(appeals.c.prediction == prediction, appeals.c.state == "open")
    row = connection.execute(query).mappings().first()
    return None if row is None else record(row, StoredAppeal)


def every(
    connection: sa.Connection, states: Sequence[str], limit: int, before: int | None = None
) -> list[StoredAppeal]:
    """Appeals in some states, newest first, of those before a number."""
    query = sa.select(appeals).where(appeals.c.state.in_(states))
    keys = [Key(appeals.c.appeal, descending=True)]
    query = keyset.part(query, keys, None if before is None else [before], limit)
    return [record(row, StoredAppeal) for row in connection.execute(query).mappings()]


def by_slice(connection: sa.Connection, digest: str) -> dict[str, tuple[int, int]]:
    """``name=value`` -> (appeals, those upheld) against a release's answers."""
    query = (
        sa.select(appeals.c.state, predictions.c.slices)
        .join(predictions, predictions.c.prediction == appeals.c.prediction)
        .where(predictions.c.digest == digest, appeals.c.state != "withdrawn")
    )
    contested: Counter[str] = Counter()
    upheld: Counter[str] = Counter()
    for state, slices in connection.execute(query):
        for name, value in slices.items():
            contested[f"{name}={value}"] += 1
            upheld[f"{name}={value}"] += state == "upheld"
    return {name: (count, upheld[name]) for name, count in contested.items()}
