"""The log of decisions: read, and checked from its first entry to its last."""

import re
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from fleet_server.services.clock import Clock, wall_clock
from fleet_server.services.errors import InvalidRequest
from fleet_server.services.kept import Kept
from fleet_server.storage import audit
from fleet_server.storage.audit import Entry
from fleet_server.storage.database import Database

HEAD = re.compile(r"^([0-9]{1,12}):([0-9a-f]{64})\Z")

KEPT_MS = 60_000


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What came of checking the chain."""

    holds: bool
    entries: int
    """That were looked at, up to the first that is wrong."""
    head: str
    """``number:hash`` of the last good entry: kept elsewhere, it shows later that none was cut."""
    problem: str = ""


class CheckedAt(NamedTuple):
    """The same, and when."""

    at_ms: int
    checked: Checked


class AuditLog:
    """Read-only questions."""

    def __init__(self, database: Database, clock: Clock = wall_clock) -> None:
        self._database = database
        self.lately = Kept(lambda: CheckedAt(clock(), self.verify()), clock, KEPT_MS)
        """What :meth:`verify` said within the minute: it reads the whole log."""

    def entries(
        self, after: int, limit: int, *, subject: str | None = None, actor: str | None = None
    ) -> list[Entry]:
        """Entries with a larger number, oldest first."""
        with self._database.read() as connection:
            return audit.after(connection, after, limit, subject=subject, actor=actor)

    def latest(
        self, limit: int, *, before: int | None = None, kind: str | None = None
    ) -> list[Entry]:
        """The newest entries, newest first; ``kind`` is the part of an action before its point."""
        with self._database.read() as connection:
            return audit.latest(connection, limit, before=before, kind=kind)

    def kinds(self) -> dict[str, int]:
        """Kind of decision -> entries."""
        with self._database.read() as connection:
            return audit.kinds(connection)

    def verify(self, head: str | None = None) -> Checked:
        """Walk the chain.

        Args:
            head: ``number:hash`` of an entry that was kept elsewhere and has to be in it still.

        Raises:
            InvalidRequest: ``head`` is none.
        """
        known = _head(head)
        with self._database.read() as connection:
            return _walk(connection, known)


def _head(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    found = HEAD.match(text)
    if found is None:
        raise InvalidRequest("a head is written number:hash, as 'serinus audit verify' says it")
    return int(found[1]), found[2]


def _walk(connection: sa.Connection, known: tuple[int, str] | None) -> Checked:
    number, previous = 0, audit.START
    for entry in audit.every(connection):
        problem = _wrong(entry, number, previous, known)
        if problem:
            return Checked(
                holds=False, entries=number, head=f"{number}:{previous}", problem=problem
            )
        number, previous = entry.entry, entry.hash
    problem = ""
    if known is not None and number < known[0]:
        problem = f"entries after {number} were cut off: there were {known[0]}"
    return Checked(holds=not problem, entries=number, head=f"{number}:{previous}", problem=problem)


def _wrong(entry: Entry, number: int, previous: str, known: tuple[int, str] | None) -> str:
    """What is wrong with the entry that follows; empty where nothing is."""
    if entry.entry != number + 1:
        return f"entry {number + 1} is missing"
    if entry.previous != previous:
        return f"entry {entry.entry} does not follow the one before it"
    if entry.hash != audit.digest(entry):
        return f"entry {entry.entry} was changed"
    if known is not None and entry.entry == known[0] and entry.hash != known[1]:
        return f"entry {entry.entry} is not the one that was kept: the log was written anew"
    return ""
