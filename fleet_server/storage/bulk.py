"""Many rows in one statement: what a batch leaves behind is written once for each table.

SQLite runs a prepared statement for each row, without leaving the process; PostgreSQL takes columns
as arrays, in one round trip.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
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
    for part in chunks([_bound(connection, columns, row) for row in rows], AT_ONCE):
        _run(connection, begin, columns, part, end)


def update(
    connection: sa.Connection, table: sa.Table, key: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Set columns of the rows that have a key; those that are not there stay away."""
    if not rows:
        return
    names = [name for name in rows[0] if name != key]
    query = (
        table.update()
        .where(table.c[key] == sa.bindparam("at_" + key))
        .values({name: sa.bindparam("to_" + name) for name in names})
    )
    values = [{f"at_{key}": row[key]} | {f"to_{n}": row[n] for n in names} for row in rows]
    connection.execute(query, values)


def chunks(values: Iterable[T], size: int) -> Iterable[list[T]]:
    """Lists of at most so many."""
    iterator = iter(values)
    while part := list(islice(iterator, size)):
        yield part


def _bound(
    connection: sa.Connection, columns: Sequence[sa.Column[Any]], row: Mapping[str, Any]
) -> list[Any]:
    """Values as the driver takes them."""
    found = []
    for column in columns:
        value = row[column.name]
        processor = column.type.dialect_impl(connection.dialect).bind_processor(connection.dialect)
        found.append(value if processor is None else processor(value))
    return found


def _run(
    connection: sa.Connection,
    begin: str,
    columns: Sequence[sa.Column[Any]],
    rows: Sequence[Sequence[Any]],
    end: str,
) -> None:
    names = [f"p{number}" for number in range(len(columns))]
    if connection.dialect.name != "postgresql":
        marks = ", ".join(f":{name}" for name in names)
        statement = sa.text(f"{begin} VALUES ({marks}) {end}")
        connection.execute(statement, [dict(zip(names, row, strict=True)) for row in rows])
        return
    arrays = [
        f"CAST(:{name} AS {column.type.compile(connection.dialect)}[])"
        for name, column in zip(names, columns, strict=True)
    ]
    statement = sa.text(f"{begin} SELECT * FROM unnest({', '.join(arrays)}) {end}")
    values = {name: list(value) for name, value in zip(names, zip(*rows, strict=True), strict=True)}
    connection.execute(statement, values)
