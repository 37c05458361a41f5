"""Forgets what has been summed up long ago, so that the database stays as large as the fleet."""

import time
from collections.abc import Callable

import sqlalchemy as sa

from fleet_server.config import RetentionConfig
from fleet_server.services.clock import Clock
from fleet_server.storage import commands, epochs, journal, rollups, runs, windows
from fleet_server.storage.database import Database

EVERY_MS = 3_600_000
DAY_MS = 24 * 3_600_000
AT_ONCE = 2000
"""Rows of one transaction: ingest waits for it."""
OUTBOXES_AT_ONCE = 50
BUDGET_SECONDS = 0.5
"""Of one call; what is left over is done by the next."""


class Retention:
    """Deletes windows, hours, events and closed alerts once an hour, a bit at a time.

    Windows are in the sums by hour and day, and in the receipts, since they came; so that one is
    deleted takes nothing out of any figure, and one that comes again is known.
    """

    def __init__(self, database: Database, clock: Clock, config: RetentionConfig) -> None:
        self._database = database
        self._clock = clock
        self._config = config
        self._done_ms: int | None = None

    def prune(self, budget_seconds: float = BUDGET_SECONDS) -> None:
        """Forget what is too old, unless that was done within the hour."""
        now = self._clock()
        if self._done_ms is not None and now - self._done_ms < EVERY_MS:
            return
        until = time.monotonic() + budget_seconds
        for step in self._steps(now):
            while self._did(step):
                if time.monotonic() > until:
                    return
        self._done_ms = now

    def _steps(self, now_ms: int) -> list[Callable[[sa.Connection], int]]:
        """What may be repeated until it finds nothing; receipts come before windows go."""
        windows_before = now_ms - round(self._config.window_days * DAY_MS)
        hours_before = now_ms - round(self._config.hour_days * DAY_MS)
        runs_before = now_ms - round(self._config.run_days * DAY_MS)
        events_before = now_ms - round(self._config.event_days * DAY_MS)

        def of_journal(connection: sa.Connection) -> int:
            journal.forget(connection, events_before)
            commands.forget(connection, events_before)
            runs.forget(connection, runs_before)
            return 0

        return [
            lambda connection: epochs.settle(connection, OUTBOXES_AT_ONCE),
            lambda connection: windows.forget(connection, windows_before, AT_ONCE),
            lambda connection: rollups.forget_hours(connection, hours_before, AT_ONCE),
            of_journal,
        ]

    def _did(self, step: Callable[[sa.Connection], int]) -> bool:
        with self._database.write() as connection:
            return bool(step(connection))
