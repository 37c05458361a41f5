"""Warns before what people sign in the release repository ends; the server cannot sign it."""

from collections.abc import Mapping
from datetime import UTC, datetime

import sqlalchemy as sa

from fleet_server.domain import expiry
from fleet_server.services.clock import Clock
from fleet_server.storage import journal
from fleet_server.storage.database import Database


class RepositoryExpiry:
    """Alerts 30 days before an end, an incident 7 days before it, and what is left as numbers."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._ends: Mapping[str, datetime] = {}
        self._told: object = None
        """What was written last: the repository is looked at often, and rarely is there news."""

    def report(self, ends: Mapping[str, datetime]) -> None:
        """Take over when root, targets and releases end; open and close alerts by it."""
        self._ends = dict(ends)
        now = self._now()
        news = {role: (end, expiry.kind(end, now), end > now) for role, end in ends.items()}
        if news == self._told:
            return
        with self._database.write() as connection:
            for role in expiry.FIXES:
                self._warn(connection, role, ends.get(role), now)
        self._told = news

    def seconds_left(self) -> dict[str, float]:
        """Role -> seconds to its end, negative after it; empty where this process never looked."""
        now = self._now()
        return {role: (end - now).total_seconds() for role, end in sorted(self._ends.items())}

    def _warn(
        self, connection: sa.Connection, role: str, end: datetime | None, now: datetime
    ) -> None:
        at_ms = self._clock()
        wanted = None if end is None else expiry.kind(end, now)
        for kind in expiry.KINDS:
            if kind != wanted or end is None:
                journal.close_alert(connection, at_ms, kind, role)
                continue
            title = expiry.title(role, end, now)
            detail = {"role": role, "expires_ms": round(end.timestamp() * 1000)}
            if journal.open_alert(connection, at_ms, kind, role, title, detail):
                journal.add_event(connection, at_ms, kind, role, title, detail)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock() / 1000, UTC)
