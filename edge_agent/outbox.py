"""Unsent messages on disk: bounded, ordered, and unharmed by a power cut. Knows no payloads.

Statistics are kept before samples: when the bound is reached, samples go first, oldest first.
"""

import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from edge_core.errors import Unavailable

STATS = 0
SAMPLES = 1
CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Stored(NamedTuple):
    """A message that waits for its acknowledgement."""

    id: int
    topic: str
    payload: bytes


class _Damaged(sqlite3.DatabaseError):
    """The file opens, but what it holds is not whole."""


class Outbox:
    """The queue below one state folder. Belongs to the event loop's thread.

    Raises:
        Unavailable: it cannot be opened now: disk full, no permission, held by another process.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.dropped = 0
        path = folder / "outbox.db"
        try:
            self._db = self._open(path)
        except sqlite3.DatabaseError as error:
            damaged = isinstance(error, _Damaged) or error.sqlite_errorcode & 0xFF in CORRUPT
            if not damaged:
                raise Unavailable(f"cannot open the outbox {path}: {error}") from error
            # Keep it for people to look at, and start a new epoch.
            path.replace(path.with_suffix(".corrupt"))
            for suffix in ("-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
            self._db = self._open(path)
        self.epoch = str(self._meta()["epoch"])

    def _meta(self) -> dict[str, str | int]:
        epoch, sequence = self._db.execute("select epoch, sequence from meta").fetchone()
        return {"epoch": epoch, "sequence": sequence}

    def _open(self, path: Path) -> sqlite3.Connection:
        # Without an isolation level, transactions begin where we say so and nowhere else.
        database = sqlite3.connect(path, isolation_level=None)
        try:
            return self._prepared(database)
        except sqlite3.Error:
            database.close()
            raise

    @staticmethod
    def _prepared(database: sqlite3.Connection) -> sqlite3.Connection:
        database.execute("pragma journal_mode = wal")
        # A sequence number must never be given twice, so each commit reaches the disk.
        database.execute("pragma synchronous = full")
        if not database.execute("select name from sqlite_master where type = 'table'").fetchall():
            with _atomic(database):  # a cut leaves all of it or nothing
                database.execute("create table meta (epoch text, sequence integer)")
                database.execute("insert into meta values (?, 0)", (secrets.token_hex(8),))
                # Without autoincrement an emptied table would give the same ids again, and who
                # asks for messages after the last one sent would never see them.
                database.execute(
                    "create table messages (id integer primary key autoincrement, "
                    "kind integer, topic text, payload blob)"
                )
        problem = database.execute("pragma quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise _Damaged(problem)
        try:
            whole = database.execute("select epoch, sequence from meta").fetchone()
            database.execute("select id, kind, topic, payload from messages limit 1").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                raise  # the disk's trouble, not the file's
            raise _Damaged(str(error)) from error
        if whole is None:
            raise _Damaged("it has no epoch")
        return database

    def add(self, kind: int, topic: str, encode: Iterable[Callable[[str, int], bytes]]) -> None:
        """Store messages; each is encoded with the epoch and its own sequence number.

        The numbers and the messages are committed together, so no number is lost or used twice.

        Raises:
            Unavailable: the disk is full or failed; nothing was stored.
        """
        try:
            with _atomic(self._db):
                sequence = int(self._meta()["sequence"])
                for make in encode:
                    if kind == STATS:
                        sequence += 1
                    self._db.execute(
                        "insert into messages (kind, topic, payload) values (?, ?, ?)",
                        (kind, topic, make(self.epoch, sequence)),
                    )
                self._db.execute("update meta set sequence = ?", (sequence,))
                self._shrink()
        except sqlite3.Error as error:
            raise Unavailable(f"the outbox cannot store messages: {error}") from error

    def _shrink(self) -> None:
        used = self.size
        while used > self._max_bytes:
            row = self._db.execute(
                "select id, length(payload) from messages order by kind desc, id limit 1"
            ).fetchone()
            self._db.execute("delete from messages where id = ?", (row[0],))
            used -= row[1]
            self.dropped += 1

    def oldest(self, limit: int, *, after: int = 0) -> list[Stored]:
        """The oldest messages with an id above ``after``, statistics and samples alike.

        Raises:
            Unavailable: the disk failed or damaged them.
        """
        try:
            rows = self._db.execute(
                "select id, topic, payload from messages where id > ? order by id limit ?",
                (after, limit),
            ).fetchall()
        except sqlite3.Error as error:
            raise Unavailable(f"the outbox cannot be read: {error}") from error
        return [Stored(*row) for row in rows]

    def sent(self, message_id: int) -> None:
        """Forget a message that the broker acknowledged.

        Raises:
            Unavailable: the disk is full or failed; it is sent again after the next start.
        """
        try:
            with _atomic(self._db):
                self._db.execute("delete from messages where id = ?", (message_id,))
        except sqlite3.Error as error:
            raise Unavailable(f"the outbox cannot forget a sent message: {error}") from error

    @property
    def size(self) -> int:
        """Bytes of all payloads.

        Raises:
            Unavailable: the disk failed or damaged them.
        """
        query = "select coalesce(sum(length(payload)), 0) from messages"
        try:
            return int(self._db.execute(query).fetchone()[0])
        except sqlite3.Error as error:
            raise Unavailable(f"the outbox cannot be read: {error}") from error

    def close(self) -> None:
        """Close the database."""
        self._db.close()


@contextmanager
def _atomic(database: sqlite3.Connection) -> Iterator[None]:
    """One transaction: all of it reaches the disk, or nothing."""
    database.execute("begin immediate")
    try:
        yield
        database.execute("commit")
    except BaseException:
        if database.in_transaction:
            database.execute("rollback")
        raise
