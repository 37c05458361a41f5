"""Everything that ``/metrics`` tells, read at once and kept for some seconds."""

from typing import Any

import msgspec

from fleet_server.services.clock import Clock
from fleet_server.services.kept import Kept
from fleet_server.storage import audit, figures, leadership, releases, rollouts, webhooks
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
    incidents: Counts
    rejected: Counts
    parity: dict[str, Counts]
    retraining: Counts
    unsent: int
    unanswered: int
    """Commands that hold and that no device has answered."""
    expired: int
    """Commands that ended before their device answered, of those that are remembered."""
    telling: int
    """Messages to webhooks that were not taken yet."""
    decisions: int
    """Entries of the log of decisions."""
    leader_renewed_ms: int | None
    """When the leader was last heard of, by the database's clock; none where nobody ever led."""
    production: dict[str, tuple[str, int]]
    """Model -> (digest, since in ms)."""
    evidence: list[dict[str, Any]]
    """Figures of the newest verdict of each running rollout, with its ``rollout`` and ``model``."""


class FigureBook:
    """Reads figures; the same ones again within :data:`KEPT_MS`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._kept = Kept(self._read, clock, KEPT_MS)

    def now(self) -> Figures:
        """Read them; raise :class:`Unavailable` where the database is away."""
        return self._kept()

    def _read(self) -> Figures:
        now = self._clock()
        with self._database.read() as connection:
            leader = leadership.present(connection)
            return Figures(
                names=releases.names(connection),
                devices=figures.devices_by_release(connection),
                rows=figures.rows_by_release(connection),
                rollouts=figures.rollouts_by_state(connection),
                alerts=figures.open_alerts(connection),
                incidents=figures.unresolved_incidents(connection),
                rejected=figures.rejected_messages(connection),
                parity=figures.parity_samples(connection),
                retraining=figures.retraining_by_state(connection),
                unsent=figures.unsent(connection),
                unanswered=figures.unanswered_commands(connection, now),
                expired=figures.expired_commands(connection, now),
                leader_renewed_ms=None if leader is None else leader.renewed_ms,
                telling=webhooks.waiting(connection),
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
