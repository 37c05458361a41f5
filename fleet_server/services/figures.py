"""Everything that ``/metrics`` tells, read at once and kept for some seconds."""

import threading
from typing import Any

import msgspec

from fleet_server.services.clock import Clock
from fleet_server.storage import audit, figures, releases, rollouts
from fleet_server.storage.database import Database
from fleet_server.storage.figures import Counts

KEPT_MS = 5000
"""A scrape costs the database no more than once in so long, whoever scrapes."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Counts; releases by digest."""

    names: dict[str, str]
    """Digest -> ``model@version``."""
    devices: Counts
    rows: dict[str, Counts]
    rollouts: Counts
    alerts: Counts
    rejected: Counts
    parity: dict[str, Counts]
    retraining: Counts
    unsent: int
    unanswered: int
    decisions: int
    """Entries of the log of decisions."""
    production: dict[str, tuple[str, int]]
    """Model -> (digest, since in ms)."""
    evidence: list[dict[str, Any]]
    """Figures of the newest verdict of each running rollout, with its ``rollout`` and ``model``."""


class FigureBook:
    """Reads figures; the same ones again within :data:`KEPT_MS`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: tuple[int, Figures] | None = None

    def now(self) -> Figures:
        """Read them; raise :class:`Unavailable` where the database is away."""
        with self._lock:
            now = self._clock()
            if self._kept is None or not 0 <= now - self._kept[0] < KEPT_MS:
                self._kept = (now, self._read())
            return self._kept[1]

    def _read(self) -> Figures:
        with self._database.read() as connection:
            return Figures(
                names=releases.names(connection),
                devices=figures.devices_by_release(connection),
                rows=figures.rows_by_release(connection),
                rollouts=figures.rollouts_by_state(connection),
                alerts=figures.open_alerts(connection),
                rejected=figures.rejected_messages(connection),
                parity=figures.parity_samples(connection),
                retraining=figures.retraining_by_state(connection),
                unsent=figures.unsent(connection),
                unanswered=figures.unanswered_commands(connection),
                decisions=audit.count(connection),
                production={
                    model: (row.digest, row.since_ms)
                    for model, row in releases.in_production(connection).items()
                },
                evidence=[
                    {"rollout": row.rollout, "model": row.model, **figure}
                    for row in rollouts.unfinished(connection)
                    if row.latest is not None
                    for figure in msgspec.json.decode(row.latest)["evidence"]
                ],
            )
