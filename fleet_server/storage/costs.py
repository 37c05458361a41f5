"""Queries on what answers cost and who asked for them."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from edge_core.messages.telemetry import OTHER_CONSUMERS
from fleet_server.storage import bulk
from fleet_server.storage.tables import consumers, costs
from fleet_server.storage.upsert import insert

MOST_CONSUMERS = 256
"""Names that are kept of each model; more are added up under :data:`OTHER_CONSUMERS`."""


class CostCounts(msgspec.Struct, kw_only=True):
    """Sums over windows."""

    predictions: int = 0
    cached: int = 0
    fallbacks: int = 0
    shadowed: int = 0
    cpu_us: int = 0
    shadow_cpu_us: int = 0
    sent_bytes: int = 0
    span_ms: int = 0
    labels: int = 0

    def merge(self, other: "CostCounts") -> None:
        """Add another's sums."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class CostKey(NamedTuple):
    """What is counted together."""

    day: int
    """From 1970-01-01 UTC; 0: before days were kept."""
    digest: str
    target: str
    """Empty where a label's prediction named none."""


class Consumer(msgspec.Struct, frozen=True, kw_only=True):
    """Who asked a model, and how much."""

    model: str
    consumer: str
    rows: int
    first_ms: int
    last_ms: int


FIELDS = CostCounts.__struct_fields__


def add(connection: sa.Connection, sums: Mapping[CostKey, CostCounts]) -> None:
    """Add to what is kept."""
    rows = [{**key._asdict(), **msgspec.structs.asdict(counts)} for key, counts in sums.items()]
    bulk.put(connection, costs, rows, add=FIELDS)


def since(connection: sa.Connection, first_day: int) -> dict[CostKey, CostCounts]:
    """Everything that was counted from a day on."""
    rows = connection.execute(sa.select(costs).where(costs.c.day >= first_day)).mappings()
    return {
        CostKey(row["day"], row["digest"], row["target"]): CostCounts(
            **{name: row[name] for name in FIELDS}
        )
        for row in rows
    }


def add_consumer(
    connection: sa.Connection, model: str, consumer: str, rows: int, now_ms: int
) -> None:
    """Count rows that somebody asked for."""
    named = sa.select(consumers.c.consumer).where(consumers.c.model == model)
    known = set(connection.execute(named).scalars())
    if consumer not in known and len(known) >= MOST_CONSUMERS:
        consumer = OTHER_CONSUMERS
    connection.execute(
        insert(connection, consumers)
        .values(model=model, consumer=consumer, rows=rows, first_ms=now_ms, last_ms=now_ms)
        .on_conflict_do_update(
            index_elements=["model", "consumer"],
            set_={"rows": consumers.c.rows + rows, "last_ms": now_ms},
        )
    )


def every_consumer(connection: sa.Connection) -> list[Consumer]:
    """All consumers of all models, those that ask most first."""
    query = sa.select(consumers).order_by(consumers.c.model, consumers.c.rows.desc())
    return [Consumer(**row) for row in connection.execute(query).mappings()]
