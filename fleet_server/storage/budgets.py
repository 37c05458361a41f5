"""Queries on prices and budgets."""

import msgspec
import sqlalchemy as sa

from fleet_server.domain.budget import Span
from fleet_server.domain.pricing import Prices
from fleet_server.storage.rows import record
from fleet_server.storage.tables import budgets, prices
from fleet_server.storage.upsert import insert


class StoredPrices(Prices, frozen=True, kw_only=True):
    """Prices, and who set them."""

    set_ms: int
    set_by: str


class StoredBudget(msgspec.Struct, frozen=True, kw_only=True):
    """What a model may cost."""

    model: str
    span: Span
    amount: float
    set_ms: int
    set_by: str


def every_price(connection: sa.Connection) -> list[StoredPrices]:
    """All prices by their first day, ascending."""
    query = sa.select(prices).order_by(prices.c.day)
    return [record(row, StoredPrices) for row in connection.execute(query).mappings()]


def put_prices(connection: sa.Connection, row: StoredPrices) -> None:
    """Set prices from a day on; those of the same day are replaced."""
    values = msgspec.structs.asdict(row)
    connection.execute(
        insert(connection, prices)
        .values(values)
        .on_conflict_do_update(index_elements=["day"], set_=values)
    )


def every(connection: sa.Connection) -> list[StoredBudget]:
    """All budgets by model and span."""
    query = sa.select(budgets).order_by(budgets.c.model, budgets.c.span)
    return [record(row, StoredBudget) for row in connection.execute(query).mappings()]


def put(connection: sa.Connection, row: StoredBudget) -> None:
    """Set a budget, in the place of the one for the same span."""
    values = msgspec.structs.asdict(row)
    connection.execute(
        insert(connection, budgets)
        .values(values)
        .on_conflict_do_update(index_elements=["model", "span"], set_=values)
    )


def drop(connection: sa.Connection, model: str, span: Span) -> bool:
    """Forget a budget; whether there was one."""
    done = connection.execute(
        budgets.delete().where(budgets.c.model == model, budgets.c.span == span)
    )
    return bool(done.rowcount)
