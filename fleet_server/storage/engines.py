"""SQLite and PostgreSQL behind one face: how transactions begin, and which errors pass."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Protocol

import msgspec
import sqlalchemy as sa
from sqlalchemy import event

BUSY_TIMEOUT_MS = 10_000
WRITERS = 5_246_789_031
"""Key of the advisory lock that one writing transaction holds in PostgreSQL."""
LEADER = 5_246_789_032
"""Key of the advisory lock that the session of the process that decides holds."""
IDLE_TIMEOUT_MS = 30_000
"""A process that stops in the midst of a writing transaction loses it, or all would wait for it."""
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

    def refuses(self, error: sa.exc.SQLAlchemyError) -> bool:
        """Whether it can never hold a value that it was given."""
        ...

    def try_lead(self) -> "LeaderLock | None":
        """Take the lock of the process that decides; none where another has it."""
        ...

    def end_leader(self) -> None:
        """Take the lock from a process that does not move any more."""
        ...


class LeaderLock(Protocol):
    """Held by one process at a time, until it ends or lets go."""

    def held(self) -> bool:
        """Whether it is still ours."""
        ...

    def release(self) -> None:
        """Let go."""
        ...


class Sqlite:
    """One file in write-ahead mode; readers never wait for the writer."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.engine = sa.create_engine(
            f"sqlite:///{path}", pool_size=8, max_overflow=32, json_deserializer=msgspec.json.decode
        )
        event.listen(self.engine, "connect", _prepare)

    def begin_read(self, connection: sa.Connection) -> None:
        """Begin with the first read."""
        connection.exec_driver_sql("BEGIN")

    def begin_write(self, connection: sa.Connection) -> None:
        """Take the write lock at once."""
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def refuses(self, error: sa.exc.SQLAlchemyError) -> bool:
        """It holds any text, and numbers are checked before."""
        return False

    def passes(self, error: sa.exc.SQLAlchemyError) -> bool:
        """File, disk and locks; not what was asked."""
        faults = (
            sa.exc.IntegrityError,
            sa.exc.DataError,
            sa.exc.ProgrammingError,
            sa.exc.InterfaceError,
        )
        return not isinstance(error, faults) and _from_database(error)

    def try_lead(self) -> LeaderLock | None:
        """The lock on the data folder lets one server in; it is the leader."""
        return _FolderLock()

    def end_leader(self) -> None:
        """There is no other."""


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
        idle = f"SET LOCAL idle_in_transaction_session_timeout = {IDLE_TIMEOUT_MS}"
        connection.execute(sa.text(idle))
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(WRITERS)))

    def refuses(self, error: sa.exc.SQLAlchemyError) -> bool:
        """A zero in a text, or a number out of range (SQLSTATE class 22)."""
        return _sqlstate(error).startswith("22")

    def passes(self, error: sa.exc.SQLAlchemyError) -> bool:
        """Connections and what :data:`PASSING` holds."""
        if isinstance(error, sa.exc.InterfaceError | sa.exc.TimeoutError):
            return True
        if not isinstance(error, sa.exc.DBAPIError):
            return _from_database(error)
        state = _sqlstate(error)
        return state.startswith(PASSING) if state else True  # broken before it could answer

    def try_lead(self) -> LeaderLock | None:
        """A lock of a session of its own: it ends with the process, or with the connection."""
        connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        connection.detach()  # closing it ends the session, instead of keeping it for others
        try:
            if connection.execute(sa.select(sa.func.pg_try_advisory_lock(LEADER))).scalar_one():
                return _SessionLock(connection)
        except BaseException:
            connection.close()
            raise
        connection.close()
        return None

    def end_leader(self) -> None:
        """End the session that holds the lock, whatever its process does."""
        holders = sa.text(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            " AND classid = :high AND objid = :low AND objsubid = 1 AND granted AND database ="
            " (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        with self.engine.connect() as connection:
            connection.execute(holders, {"high": LEADER >> 32, "low": LEADER & 0xFFFFFFFF})
            connection.rollback()


class _FolderLock:
    """What the data folder's lock stands for."""

    def held(self) -> bool:
        """As long as the process lives."""
        return True

    def release(self) -> None:
        """It goes with the process."""


class _SessionLock:
    """A session-level advisory lock of PostgreSQL."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def held(self) -> bool:
        """Whether the session lives."""
        try:
            self._connection.execute(sa.text("SELECT 1"))
        except (sa.exc.SQLAlchemyError, OSError):
            return False
        return True

    def release(self) -> None:
        """End the session."""
        # A session that the database has ended cannot even be closed.
        with contextlib.suppress(sa.exc.SQLAlchemyError, OSError):
            self._connection.close()


def backend_of(url: str | None, path: Path) -> Backend:
    """The database of a URL, or the SQLite file where none is given."""
    if url is None:
        return Sqlite(path)
    return Postgres(sa.make_url(url))


def _sqlstate(error: sa.exc.SQLAlchemyError) -> str:
    """PostgreSQL's code of an error; empty where the server could not tell any."""
    if not isinstance(error, sa.exc.DBAPIError) or error.orig is None or not error.orig.args:
        return ""
    told = error.orig.args[0]
    return str(told.get("C", "")) if isinstance(told, dict) else ""


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
