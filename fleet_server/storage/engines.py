"""SQLite and PostgreSQL behind one face: how transactions begin, and which errors pass."""

import sqlite3
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy import event

BUSY_TIMEOUT_MS = 10_000
WRITERS = 5_246_789_031
"""Key of the advisory lock that one writing transaction holds in PostgreSQL."""
PASSING = ("08", "40", "53", "55", "57", "58", "XX")
"""Classes of SQLSTATE that say nothing about the statement: connections, deadlocks, disk and
memory, locks, an operator's shutdown, the system. Source: PostgreSQL documentation, appendix A."""


class Backend(Protocol):
    """One kind of database."""

    engine: sa.Engine
    name: str
    """As people may see it: without a password."""

    def begin_read(self, connection: sa.Connection) -> None:
        """Begin a transaction that sees one unchanging state."""
        ...

    def begin_write(self, connection: sa.Connection) -> None:
        """Begin a transaction beside which no other writes."""
        ...

    def passes(self, error: sa.exc.SQLAlchemyError) -> bool:
        """Whether the same statement may succeed later."""
        ...


class Sqlite:
    """One file in write-ahead mode; readers never wait for the writer."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.engine = sa.create_engine(f"sqlite:///{path}", pool_size=8, max_overflow=32)
        event.listen(self.engine, "connect", _prepare)

    def begin_read(self, connection: sa.Connection) -> None:
        """Begin with the first read."""
        connection.exec_driver_sql("BEGIN")

    def begin_write(self, connection: sa.Connection) -> None:
        """Take the write lock at once."""
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def passes(self, error: sa.exc.SQLAlchemyError) -> bool:
        """File, disk and locks; not what was asked."""
        faults = (
            sa.exc.IntegrityError,
            sa.exc.DataError,
            sa.exc.ProgrammingError,
            sa.exc.InterfaceError,
        )
        return not isinstance(error, faults) and _from_database(error)


class Postgres:
    """A PostgreSQL server; writers stand in line, as they do in SQLite."""

    def __init__(self, url: sa.URL) -> None:
        self.name = url.render_as_string(hide_password=True)
        self.engine = sa.create_engine(url, pool_size=8, max_overflow=32, pool_pre_ping=True)

    def begin_read(self, connection: sa.Connection) -> None:
        """Begin; the first query fixes what is seen."""
        connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))

    def begin_write(self, connection: sa.Connection) -> None:
        """Wait for the writers' lock, which the commit releases.

        Every statement after it sees what the writer before has committed, so what is read here
        stays true until the commit.
        """
        connection.execute(sa.text(f"SET LOCAL lock_timeout = {BUSY_TIMEOUT_MS}"))
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(WRITERS)))

    def passes(self, error: sa.exc.SQLAlchemyError) -> bool:
        """Connections and what :data:`PASSING` holds."""
        if isinstance(error, sa.exc.InterfaceError | sa.exc.TimeoutError):
            return True
        if not isinstance(error, sa.exc.DBAPIError):
            return _from_database(error)
        told = error.orig.args[0] if error.orig is not None and error.orig.args else None
        if isinstance(told, dict):
            return str(told.get("C", "")).startswith(PASSING)
        return True  # the connection broke before the server could answer


def backend_of(url: str | None, path: Path) -> Backend:
    """The database of a URL, or the SQLite file where none is given."""
    if url is None:
        return Sqlite(path)
    return Postgres(sa.make_url(url))


def _from_database(error: sa.exc.SQLAlchemyError) -> bool:
    """Whether file, disk or connections failed; a statement that was never sent is a bug."""
    return isinstance(error, sa.exc.DBAPIError) or not isinstance(error, sa.exc.StatementError)


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where the code says so
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
