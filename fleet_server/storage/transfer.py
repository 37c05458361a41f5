"""Whole tables out of one database and into another, whichever kind each is."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from fleet_server.storage import schema
from fleet_server.storage.archive import Archive, InvalidBackup, Part, Table

Tell = Callable[[str], None]
KEPT_OUT = {"alembic_version", "schema_version"}
"""What every database says of itself."""
AUTHORITY = "authority files"
"""A part that is no table: the files of the key that certifies devices."""
TOLD_EVERY = 100_000


def tables_of(connection: sa.Connection) -> list[sa.Table]:
    """The tables that are there, whatever revision they belong to, by name."""
    found = sa.MetaData()
    found.reflect(connection)
    return [found.tables[name] for name in sorted(found.tables) if name not in KEPT_OUT]


def occupied(connection: sa.Connection) -> bool:
    """Whether any table holds a row."""
    return any(
        connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first()
        for table in tables_of(connection)
    )


def outgoing(connection: sa.Connection, tell: Tell) -> Iterator[Table]:
    """Every table in the order of its key, read as it is asked for."""
    for table in tables_of(connection):
        columns = sorted(str(column.name) for column in table.columns)
        rows = _rows(connection, table, columns)
        name = str(table.name)
        yield Table(name=name, columns=columns, rows=_counted(rows, name, tell))


def _rows(
    connection: sa.Connection, table: sa.Table, columns: Sequence[str]
) -> Iterator[Sequence[Any]]:
    keys = list(table.primary_key.columns) or [table.c[name] for name in columns]
    order = keys if connection.dialect.name == "sqlite" else [_bytewise(key) for key in keys]
    query = sa.select(*(table.c[name] for name in columns)).order_by(*order)
    yield from connection.execute(query.execution_options(yield_per=500))


def _bytewise(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """The order that SQLite has anyway: PostgreSQL's depends on the language of the place."""
    return sa.collate(column, "C") if isinstance(column.type, sa.String) else column


def _counted(rows: Iterator[Sequence[Any]], name: str, tell: Tell) -> Iterator[Sequence[Any]]:
    count = 0
    for row in rows:
        yield row
        count += 1
        if count % TOLD_EVERY == 0:
            tell(f"{name}: {count:,} rows so far")
    tell(f"{name}: {count:,} rows")


def fill(connection: sa.Connection, archive: Archive, tell: Tell) -> None:
    """Make an empty database what an archive says, and bring it up to date.

    Within a writing transaction. The rows go into the schema that they were written from, so that
    the revisions after it take them along as they would have in their old place.

    Raises:
        InvalidBackup: the schema is not known, or has not these tables and columns.
    """
    manifest = archive.manifest
    if manifest.revision not in schema.known():
        raise InvalidBackup(
            f"the backup has schema revision {manifest.revision[:32]}; this server knows up to "
            f"{schema.newest()}: restore it with the server version that wrote it"
        )
    schema.make(connection, manifest.revision)
    tables = {table.name: table for table in tables_of(connection)}
    parts = [part for part in manifest.parts if part.table != AUTHORITY]
    _fit(manifest.revision, parts, tables)
    for part in parts:
        _insert(connection, tables[part.table], archive, part)
        tell(f"{part.table}: {part.rows:,} rows")
    schema.bring_up(connection)


def clear(connection: sa.Connection) -> None:
    """Drop every table."""
    found = sa.MetaData()
    found.reflect(connection)
    found.drop_all(connection)


def _fit(revision: str, parts: Sequence[Part], tables: dict[str, sa.Table]) -> None:
    for part in parts:
        table = tables.get(part.table)
        if table is None or set(part.columns) != {column.name for column in table.columns}:
            raise InvalidBackup(
                f"the backup's table {part.table[:64]!r} is none of schema {revision}"
            )
    missing = tables.keys() - {part.table for part in parts}
    if missing:
        raise InvalidBackup(f"the backup has no table {min(missing)!r}")


def _insert(connection: sa.Connection, table: sa.Table, archive: Archive, part: Part) -> None:
    clean = connection.dialect.name == "postgresql"
    for frame in archive.rows(part):
        values = [
            {
                name: _clean(value) if clean else value
                for name, value in zip(part.columns, row, strict=True)
            }
            for row in frame
        ]
        connection.execute(table.insert(), values)
    if clean:
        _go_on_counting(connection, table)


def _clean(value: Any) -> Any:
    """Without the one character that PostgreSQL takes in no text."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _go_on_counting(connection: sa.Connection, table: sa.Table) -> None:
    """Let a numbered table go on after its largest number."""
    for column in table.primary_key.columns:
        sequence = connection.execute(
            sa.select(sa.func.pg_get_serial_sequence(table.name, column.name))
        ).scalar()
        if sequence is not None:
            largest = sa.select(sa.func.coalesce(sa.func.max(column) + 1, 1)).scalar_subquery()
            connection.execute(sa.select(sa.func.setval(sequence, largest, False)))
