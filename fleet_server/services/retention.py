"""Forgets what has been summed up long ago, so that the database stays as large as the fleet."""

from fleet_server.config import RetentionConfig
from fleet_server.services.clock import Clock
from fleet_server.storage import commands, journal, runs, windows
from fleet_server.storage.database import Database

EVERY_MS = 3_600_000
DAY_MS = 24 * 3_600_000


class Retention:
    """Prunes windows' bodies, events and closed alerts once an hour.

    A window's row stays: it is what keeps a window that comes again from being counted twice.
    """

    def __init__(self, database: Database, clock: Clock, config: RetentionConfig) -> None:
        self._database = database
        self._clock = clock
        self._config = config
        self._done_ms: int | None = None
        self._emptied_ms = 0

    def prune(self) -> None:
        """Forget what is too old, unless that was done within the hour."""
        now = self._clock()
        if self._done_ms is not None and now - self._done_ms < EVERY_MS:
            return
        bodies_before = now - round(self._config.window_days * DAY_MS)
        events_before = now - round(self._config.event_days * DAY_MS)
        with self._database.write() as connection:
            windows.empty_bodies(connection, self._emptied_ms, bodies_before)
            journal.forget(connection, events_before)
            commands.forget(connection, events_before)
            runs.forget(connection, now - round(self._config.run_days * DAY_MS))
        self._done_ms, self._emptied_ms = now, bodies_before
