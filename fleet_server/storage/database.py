"""The database: connections, transactions, schema version."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import event

from edge_core.errors import InvalidConfiguration, Unavailable
from fleet_server.storage import tables

SCHEMA_VERSION = 1
BUSY_TIMEOUT_MS = 10_000
CALLERS_FAULT = (
    sa.exc.IntegrityError,
    sa.exc.DataError,
    sa.exc.ProgrammingError,
    sa.exc.InterfaceError,
)
"""What was asked is wrong; trying it again later helps nobody."""


class Database:
    """One SQLite file in write-ahead mode; readers never wait for the writer.

    Every use case runs in one transaction: ``with database.write() as connection`` takes the
    write lock at once, so that what was read in it stays true until the commit.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = sa.create_engine(f"sqlite:///{path}", pool_size=8, max_overflow=32)
        self._writer = threading.RLock()
        event.listen(self._engine, "connect", _prepare)
        try:
            self._create_or_check()
        except sa.exc.DatabaseError as error:
            raise Unavailable(
                f"cannot use the database {path}: {error.orig}; move the file away to start afresh"
            ) from error

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Open a connection that sees one unchanging state of the database."""
        with self._translated(), self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            try:
                yield connection
            finally:
                connection.rollback()

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Open a transaction that commits at the end, or leaves nothing when an error is raised."""
        with self._writer, self._translated(), self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def close(self) -> None:
        """Release every connection."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.SQLAlchemyError as error:
            if isinstance(error, CALLERS_FAULT) or not _from_database(error):
                raise
            raise Unavailable(
                f"the database {self.path} cannot be used now: {getattr(error, 'orig', error)}"
            ) from error

    def _create_or_check(self) -> None:
        with self.write() as connection:
            tables.metadata.create_all(connection)
            found = connection.execute(sa.select(tables.schema_version.c.version)).scalar()
            if found is None:
                connection.execute(tables.schema_version.insert().values(version=SCHEMA_VERSION))
            elif found != SCHEMA_VERSION:
                raise InvalidConfiguration(
                    f"{self.path} has schema version {found}; this server reads {SCHEMA_VERSION}: "
                    "run the server version that wrote it, or name another data_dir"
                )


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
