"""A row of the database as a frozen record."""

from typing import TypeVar

import msgspec
import sqlalchemy as sa

R = TypeVar("R", bound=msgspec.Struct)


def record(row: sa.RowMapping, kind: type[R]) -> R:
    """Make a record of a row that has a column for each of the record's fields."""
    return msgspec.convert({str(name): value for name, value in row.items()}, kind)
