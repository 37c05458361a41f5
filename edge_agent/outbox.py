"""Unsent messages on disk: bounded, ordered, and unharmed by a power cut. Knows no payloads.

Statistics are kept before samples: when the bound is reached, samples go first, oldest first.
"""

import secrets
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import sqlite_utils
from sqlite_utils.db import Table

from edge_core.errors import Unavailable

STATS = 0
SAMPLES = 1
CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Stored(NamedTuple):
    """A message that waits for its acknowledgement."""

    id: int
    topic: str
    payload: bytes


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
            if error.sqlite_errorcode & 0xFF not in CORRUPT:
                raise Unavailable(f"cannot open the outbox {path}: {error}") from error
            # Keep it for people to look at, and start a new epoch.
            path.replace(path.with_suffix(".corrupt"))
            for suffix in ("-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
            self._db = self._open(path)
        self.epoch = str(next(iter(self._table("meta").rows))["epoch"])

    def _open(self, path: Path) -> sqlite_utils.Database:
        database = sqlite_utils.Database(path)
        try:
            return self._prepared(database)
        except sqlite3.Error:
            database.close()
            raise

    @staticmethod
    def _prepared(database: sqlite_utils.Database) -> sqlite_utils.Database:
        database.enable_wal()
        # A sequence number must never be given twice, so each commit reaches the disk.
        database.execute("pragma synchronous = full")
        if "meta" not in database.table_names():
            meta = database.table("meta")
            meta.insert({"epoch": secrets.token_hex(8), "sequence": 0})
            # Without autoincrement an emptied table would give the same ids again, and who asks
            # for messages after the last one sent would never see them.
            database.execute(
                "create table messages (id integer primary key autoincrement, "
                "kind integer, topic text, payload blob)"
            )
        return database

    def _table(self, name: str) -> Table:
        return self._db.table(name)

    def add(self, kind: int, topic: str, encode: Iterable[Callable[[str, int], bytes]]) -> None:
        """Store messages; each is encoded with the epoch and its own sequence number.

        The numbers and the messages are committed together, so no number is lost or used twice.

        Raises:
            Unavailable: the disk is full or failed; nothing was stored.
        """
        try:
            with self._db.atomic():
                sequence = int(next(iter(self._table("meta").rows))["sequence"])
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
        """The oldest messages with an id above ``after``, statistics and samples alike."""
        rows = self._db.execute(
            "select id, topic, payload from messages where id > ? order by id limit ?",
            (after, limit),
        ).fetchall()
        return [Stored(*row) for row in rows]

    def sent(self, message_id: int) -> None:
        """Forget a message that the broker acknowledged.

        Raises:
            Unavailable: the disk is full or failed; it is sent again after the next start.
        """
        try:
            with self._db.atomic():
                self._db.execute("delete from messages where id = ?", (message_id,))
        except sqlite3.Error as error:
            raise Unavailable(f"the outbox cannot forget a sent message: {error}") from error

    @property
    def size(self) -> int:
        """Bytes of all payloads."""
        row = self._db.execute("select coalesce(sum(length(payload)), 0) from messages").fetchone()
        return int(row[0])

    def close(self) -> None:
        """Close the database."""
        self._db.close()
