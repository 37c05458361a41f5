"""The database: connections and transactions."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Self

import sqlalchemy as sa

from edge_core.errors import InvalidInput, Unavailable
from fleet_server.storage import schema
from fleet_server.storage.engines import BUSY_TIMEOUT_MS, Backend, LeaderLock, Sqlite, backend_of

_NOTES: ContextVar[tuple[Callable[[sa.Connection], None], ...]] = ContextVar("notes", default=())
_CONDITION: ContextVar[list[Callable[[], None]] | None] = ContextVar("condition", default=None)


class Database:
    """SQLite or PostgreSQL.

    Every use case runs in one transaction: ``with database.write() as connection`` takes the
    write lock at once, so that what was read in it stays true until the commit.
    """

    def __init__(self, backend: Backend | Path, *, migrate: bool = True) -> None:
        """Open, and make the schema or bring it up to date; else it is left as it is found.

        Raises:
            Unavailable: it cannot be used now.
            InvalidConfiguration: a newer server has written it.
        """
        self._backend = Sqlite(backend) if isinstance(backend, Path) else backend
        self._writer = threading.RLock()
        self._fence = threading.local()
        self.migrated_from: str | None = None
        if migrate:
            self._migrate()

    def _migrate(self) -> None:
        try:
            with self.write() as connection:
                self.migrated_from = schema.bring_up(connection)
        except sa.exc.DatabaseError as error:
            raise Unavailable(
                f"cannot use the database {self.name}: {error.orig}; move the file away to start "
                "afresh, or correct [database] url"
            ) from error

    @classmethod
    def at(cls, url: str | None, path: Path, *, migrate: bool = True) -> Self:
        """The database of a URL, or the SQLite file ``path`` where none is given."""
        return cls(backend_of(url, path), migrate=migrate)

    @property
    def name(self) -> str:
        """Where it is, without a password."""
        return self._backend.name

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._backend.engine.dialect.name

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Open a connection that sees one unchanging state of the database."""
        with self._translated(), self._connected() as connection:
            self._backend.begin_read(connection)
            try:
                yield connection
            finally:
                connection.rollback()

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Open a transaction that commits at the end, or leaves nothing when an error is raised."""
        with self._turn(), self._translated(), self._connected() as connection:
            self._backend.begin_write(connection)
            try:
                for check in self._checks:
                    check(connection)
                if waiting := _CONDITION.get():
                    waiting.pop()()
                yield connection
                for note in _NOTES.get():
                    note(connection)
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    @contextlib.contextmanager
    def noting(self, note: Callable[[sa.Connection], None]) -> Iterator[None]:
        """Let every transaction that this task writes meanwhile end with a note of its own.

        The task may be spread over threads: what was begun in it counts.
        """
        token = _NOTES.set((*_NOTES.get(), note))
        try:
            yield
        finally:
            _NOTES.reset(token)

    @contextlib.contextmanager
    def provided(self, condition: Callable[[], None]) -> Iterator[None]:
        """Let the first transaction that this task writes meanwhile begin with a condition.

        It runs under the writers' lock, so what it reads by other connections stays true until the
        commit, whoever else writes; where it raises, nothing is written.
        """
        token = _CONDITION.set([condition])
        try:
            yield
        finally:
            _CONDITION.reset(token)

    @contextlib.contextmanager
    def fenced(self, check: Callable[[sa.Connection], None]) -> Iterator[None]:
        """Let every transaction that this thread writes meanwhile begin with a check.

        It runs under the writers' lock, so that what it finds stays true until the commit; where it
        raises, nothing is written.
        """
        before = self._checks
        self._fence.checks = (*before, check)
        try:
            yield
        finally:
            self._fence.checks = before

    def try_lead(self) -> LeaderLock | None:
        """Take the lock of the process that decides; none where another has it."""
        with self._translated():
            try:
                return self._backend.try_lead()
            except OSError as error:
                raise Unavailable(f"the database {self.name} cannot be reached: {error}") from error

    def end_leader(self) -> None:
        """Take that lock from a process that does not move any more."""
        with self._translated():
            self._backend.end_leader()

    @property
    def _checks(self) -> tuple[Callable[[sa.Connection], None], ...]:
        found: tuple[Callable[[sa.Connection], None], ...] = getattr(self._fence, "checks", ())
        return found

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for this process's other writers, but not for ever: one may wait for a lock."""
        if not self._writer.acquire(timeout=BUSY_TIMEOUT_MS / 1000):
            raise Unavailable(f"the database {self.name} cannot be written now: it is locked")
        try:
            yield
        finally:
            self._writer.release()

    def close(self) -> None:
        """Release every connection."""
        self._backend.engine.dispose()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        """A connection; a server that is just going away may break it before anybody answers."""
        try:
            connection = self._backend.engine.connect()
        except OSError as error:
            raise Unavailable(f"the database {self.name} cannot be reached: {error}") from error
        with connection:
            yield connection

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.SQLAlchemyError as error:
            if self._backend.refuses(error):
                raise InvalidInput("a text or number that was given cannot be stored") from error
            if not self._backend.passes(error):
                raise
            raise Unavailable(
                f"the database {self.name} cannot be used now: {getattr(error, 'orig', error)}"
            ) from error
