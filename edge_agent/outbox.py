"""Unsent messages on disk: bounded, ordered, and unharmed by a power cut. Knows no payloads.

Statistics are kept before samples: when the bound is reached, samples go first, oldest first.
"""

import secrets
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from edge_core import durable
from edge_core.errors import Unavailable, quoted


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Let an optional import of a module fail meanwhile, unless it is loaded already."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # how Python marks what is not there
    try:
        yield
    finally:
        del sys.modules[module]


with _hidden("pandas"):  # 80 MB and half of the start, for column types that nobody needs here
    import sqlite_utils

STATS = 0
SAMPLES = 1
EPOCH_BYTES = 4
"""Tells the outboxes of one device apart; each window carries them."""
MEMORY_BYTES = 4 * 1024 * 1024
"""Bound of the queue where no file can be had."""
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

    It never keeps the agent from its work: a damaged file is put aside for people to look at and
    a fresh one with an epoch of its own goes on; where the disk gives none, memory does until the
    next start.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._path = folder / "outbox.db"
        self._highest = 0
        self._used = 0
        self._damage = ""
        self.dropped = 0
        """Messages that had to go since the start, because the bound was reached."""
        self.trouble = ""
        """What a person should know about it; empty where all is well."""
        self._failing = ""
        try:
            self._db = self._open()
        except sqlite3.DatabaseError as error:
            self._db = self._another(error)
        self._take_stock()

    @property
    def troubles(self) -> list[str]:
        """What stands wrong with it: what was lost, and what fails now."""
        return [text for text in (self.trouble, self._failing) if text]

    def _take_stock(self) -> None:
        self.epoch = str(self._meta()["epoch"])
        self._used = self._payload_bytes()

    def _meta(self) -> dict[str, str | int]:
        row: dict[str, str | int] = next(iter(self._db.table("meta").rows))
        return row

    def _another(self, error: sqlite3.DatabaseError) -> sqlite_utils.Database:
        """What goes on instead of the file that cannot be used."""
        try:
            if not _is_damage(error):
                raise error
            self._put_aside()
            database = self._open()
            self.trouble = f"the outbox was damaged and began anew: {quoted(error)}"
        except (sqlite3.DatabaseError, OSError) as problem:
            self._max_bytes = min(self._max_bytes, MEMORY_BYTES)
            self.trouble = (
                f"the outbox cannot be opened, messages wait in memory only: {quoted(problem)}"
            )
            database = self._prepared(sqlite_utils.Database(memory=True))
        return database

    def _put_aside(self) -> None:
        self._path.replace(self._path.with_suffix(".corrupt"))
        for suffix in ("-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        durable.sync_folder(self._path.parent)

    def _open(self) -> sqlite_utils.Database:
        database = sqlite_utils.Database(self._path)
        try:
            return self._prepared(database)
        except sqlite3.Error:
            database.close()
            raise

    def _prepared(self, database: sqlite_utils.Database) -> sqlite_utils.Database:
        database.enable_wal()
        # A sequence number must never be given twice, so each commit reaches the disk.
        database.execute("pragma synchronous = full")
        if not database.table_names():
            with database.atomic():  # a cut leaves all of it or nothing
                database.execute("create table meta (epoch text, sequence integer)")
                database.execute(
                    "insert into meta values (?, 0)", (secrets.token_hex(EPOCH_BYTES),)
                )
                # Without autoincrement an emptied table would give the same ids again, and who
                # asks for messages after the last one sent would never see them. For the same
                # reason a fresh file goes on where the damaged one ended.
                database.execute(
                    "create table messages (id integer primary key autoincrement, "
                    "kind integer, topic text, payload blob)"
                )
                database.execute(
                    "insert into sqlite_sequence (name, seq) values ('messages', ?)",
                    (self._highest,),
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
        if whole is None or not isinstance(whole[0], str) or not isinstance(whole[1], int):
            raise _Damaged("it has no epoch")
        return database

    def add(self, kind: int, topic: str, encode: Iterable[Callable[[str, int], bytes]]) -> None:
        """Store messages; each is encoded with the epoch and its own sequence number.

        The numbers and the messages are committed together, so no number is lost or used twice.

        Raises:
            Unavailable: the disk is full or failed; nothing was stored.
        """
        makers = list(encode)
        try:
            if self._damage:
                self._begin_anew(self._damage)
            try:
                self._add(kind, topic, makers)
            except sqlite3.Error as error:
                if not _is_damage(error):
                    raise
                self._begin_anew(quoted(error))
                self._add(kind, topic, makers)
        except (sqlite3.Error, OSError) as error:
            self._failing = f"the outbox cannot store messages: {quoted(error)}"
            raise Unavailable(self._failing) from error
        self._failing = ""

    def _add(self, kind: int, topic: str, makers: Sequence[Callable[[str, int], bytes]]) -> None:
        used, dropped, highest = self._used, self.dropped, self._highest
        try:
            with self._db.atomic():
                sequence = int(self._meta()["sequence"])
                for make in makers:
                    if kind == STATS:
                        sequence += 1
                    payload = make(self.epoch, sequence)
                    row = self._db.execute(
                        "insert into messages (kind, topic, payload) values (?, ?, ?)",
                        (kind, topic, payload),
                    )
                    self._highest = row.lastrowid or self._highest
                    self._used += len(payload)
                self._db.execute("update meta set sequence = ?", (sequence,))
                self._shrink()
        except BaseException:
            self._used, self.dropped, self._highest = used, dropped, highest
            raise

    def _begin_anew(self, why: str) -> None:
        """Go on in a fresh file where the one in use turned out to be damaged."""
        self._db.close()
        self._db = self._another(_Damaged(why))
        self._damage = ""
        self._take_stock()

    def _shrink(self) -> None:
        while self._used > self._max_bytes:
            row = self._db.execute(
                "select id, length(payload) from messages order by kind desc, id limit 1"
            ).fetchone()
            self._db.execute("delete from messages where id = ?", (row[0],))
            self._used -= row[1]
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
            self._note(error)
            raise Unavailable(f"the outbox cannot be read: {error}") from error
        return [Stored(*row) for row in rows]

    def _note(self, error: sqlite3.Error) -> None:
        """Remember damage: the next message that is stored begins a fresh file."""
        if _is_damage(error):
            self._damage = quoted(error)

    def sent(self, message_id: int) -> None:
        """Forget a message that the broker acknowledged.

        Raises:
            Unavailable: the disk is full or failed; it is sent again after the next start.
        """
        try:
            with self._db.atomic():
                row = self._db.execute(
                    "select length(payload) from messages where id = ?", (message_id,)
                ).fetchone()
                self._db.execute("delete from messages where id = ?", (message_id,))
        except sqlite3.Error as error:
            self._note(error)
            raise Unavailable(f"the outbox cannot forget a sent message: {error}") from error
        if row is not None:
            self._used -= row[0]

    @property
    def size(self) -> int:
        """Bytes of all payloads."""
        return self._used

    def _payload_bytes(self) -> int:
        query = "select coalesce(sum(length(payload)), 0) from messages"
        return int(self._db.execute(query).fetchone()[0])

    def close(self) -> None:
        """Close the database."""
        self._db.close()


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is at fault, and not the disk, another process or a bound."""
    if isinstance(error, _Damaged):
        return True
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    # The statements here are always the same, so a missing table or column is damage, too.
    missing = code == sqlite3.SQLITE_ERROR and str(error).startswith("no such")
    return missing or code & 0xFF in CORRUPT
