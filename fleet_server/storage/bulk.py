"""Many rows in one statement: what a batch leaves behind is written once for each table.

SQLite runs a prepared statement for each row, without leaving the process; PostgreSQL takes columns
as arrays, in one round trip.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa

T = TypeVar("T")

AT_ONCE = 500


def put(
    connection: sa.Connection,
    table: sa.Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    add: Collection[str] = (),
    keep: Collection[str] = (),
    replace: bool = True,
) -> None:
    """Insert rows, or change those whose primary key is there.

    Args:
        connection: in a writing transaction.
        table: with a primary key.
        rows: all with the same columns, none of which share a key.
        add: columns that are added to what is there instead of replacing it.
        keep: columns that stay as they are.
        replace: whether rows that are there change at all.
    """
    if not rows:
        return
    names = list(rows[0])
    columns = [table.c[name] for name in names]
    quote = connection.dialect.identifier_preparer.quote
    keys = [column.name for column in table.primary_key.columns]
    changes = [
        f"{quote(n)} = {quote(table.name)}.{quote(n)} + excluded.{quote(n)}"
        if n in add
        else f"{quote(n)} = excluded.{quote(n)}"
        for n in names
        if n not in keys and n not in keep
    ]
    then = f"DO UPDATE SET {', '.join(changes)}" if replace and changes else "DO NOTHING"
    end = f"ON CONFLICT ({', '.join(map(quote, keys))}) {then}"
    begin = f"INSERT INTO {quote(table.name)} ({', '.join(map(quote, names))})"
    for part in _parts(connection, columns, rows):
        _run(connection, begin, columns, part, end)


def update(
    connection: sa.Connection,
    table: sa.Table,
    keys: Collection[str],
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Set columns of the rows that have all of these keys; those that are not there stay away."""
    if not rows:
        return
    names = list(rows[0])
    columns = [table.c[name] for name in names]
    quote = connection.dialect.identifier_preparer.quote
    changes = ", ".join(f"{quote(n)} = given.{quote(n)}" for n in names if n not in keys)
    same = " AND ".join(f"{quote(table.name)}.{quote(n)} = given.{quote(n)}" for n in keys)
    begin = f"UPDATE {quote(table.name)} SET {changes} FROM ("
    end = f") AS given WHERE {same}"
    for part in _parts(connection, columns, rows):
        _run(connection, begin, columns, part, end, named=True)


def chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most so many."""
    iterator = iter(values)
    while part := list(islice(iterator, size)):
        yield part


def _parts(
    connection: sa.Connection, columns: Sequence[sa.Column[Any]], rows: Sequence[Mapping[str, Any]]
) -> Iterator[list[list[Any]]]:
    """Values as the driver takes them, for one statement after another."""
    dialect = connection.dialect
    processors = [
        (column.name, column.type.dialect_impl(dialect).bind_processor(dialect))
        for column in columns
    ]
    bound = (
        [row[name] if process is None else process(row[name]) for name, process in processors]
        for row in rows
    )
    return chunks(bound, AT_ONCE)


def _run(
    connection: sa.Connection,
    begin: str,
    columns: Sequence[sa.Column[Any]],
    rows: Sequence[Sequence[Any]],
    end: str,
    *,
    named: bool = False,
) -> None:
    """Put rows between the beginning and the end of a statement.

    Both drivers get it as they take it: what SQLAlchemy does for each row would take longer than
    the database.
    """
    quote = connection.dialect.identifier_preparer.quote
    names = [quote(column.name) for column in columns]
    if connection.dialect.name != "postgresql":
        marks = ", ".join(f"? AS {name}" if named else "?" for name in names)
        values = f"SELECT {marks}" if named else f"VALUES ({marks})"
        connection.exec_driver_sql(f"{begin} {values} {end}", [tuple(row) for row in rows])
        return
    arrays = [
        f"CAST(:p{number} AS {column.type.compile(connection.dialect)}[])"
        for number, column in enumerate(columns)
    ]
    given = f" AS each ({', '.join(names)})" if named else ""
    statement = sa.text(f"{begin} SELECT * FROM unnest({', '.join(arrays)}){given} {end}")
    values_of = {f"p{n}": list(column) for n, column in enumerate(zip(*rows, strict=True))}
    connection.execute(statement, values_of)
