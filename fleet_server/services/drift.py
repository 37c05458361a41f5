"""Watches every release's merged windows for a change of the world."""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from fleet_server.domain import drift as detector
from fleet_server.domain.drift import DriftFinding, DriftState, Settings, WatchedChannel
from fleet_server.services.catalog import Catalog, Release
from fleet_server.services.clock import Clock
from fleet_server.services.evidence import DRIFT
from fleet_server.storage import journal, windows
from fleet_server.storage.database import Database
from fleet_server.storage.windows import PeriodCounts

KEPT_PERIODS = 500
STALE_PERIODS = 10
"""A detector that saw nothing for so long has no say: nobody runs its release any more."""
UNWATCHED = ("fallback",)


class DriftWatch:
    """Feeds finished periods to one detector for each release, and keeps one alert per model."""

    def __init__(
        self, database: Database, catalog: Catalog, clock: Clock, *, period_seconds: float
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._clock = clock
        self._period_ms = round(period_seconds * 1000)
        self._settings = Settings()
        self._seen: int | None = None

    def observe(self) -> None:
        """Take in every period that has ended since the last call."""
        now = self._clock()
        current = now // self._period_ms
        if self._seen == current:
            return
        with self._database.write() as connection:
            states = windows.drift_states(connection)
            for digest, found in self._finished(connection, states, current).items():
                release = self._catalog.get(connection, digest)
                if release is not None:
                    self._watch(connection, release, found, states.get(digest), now)
            windows.forget_periods(connection, current - KEPT_PERIODS)
        self._seen = current

    def _finished(
        self, connection: sa.Connection, states: dict[str, tuple[bytes, int]], current: int
    ) -> dict[str, list[PeriodCounts]]:
        """Periods that a release's detector has not seen, by digest, oldest first."""
        oldest = min((period for _, period in states.values()), default=-1)
        found: dict[str, list[PeriodCounts]] = {}
        for counts in windows.periods_between(connection, oldest, current):
            seen = states.get(counts.digest, (b"", -1))[1]
            if counts.period > seen and counts.arm not in UNWATCHED:
                found.setdefault(counts.digest, []).append(counts)
        return found

    def _watch(
        self,
        connection: sa.Connection,
        release: Release,
        found: Sequence[PeriodCounts],
        stored: tuple[bytes, int] | None,
        now_ms: int,
    ) -> None:
        state = DriftState()
        if stored is not None:
            state = msgspec.json.decode(stored[0], type=DriftState)
        channels = [
            WatchedChannel(name=c.name, kind=c.kind, size=c.size)
            for c in release.reference.channels
        ]
        for period in sorted({counts.period for counts in found}):
            arms = {c.arm: (c.rows, c.counts) for c in found if c.period == period}
            state, finding = detector.observe(state, channels, arms, period, self._settings)
            windows.put_drift_state(
                connection, release.ref.digest, msgspec.json.encode(state), period
            )
            if finding is not None:
                self._tell(connection, release, finding, now_ms)

    def _tell(
        self, connection: sa.Connection, release: Release, finding: DriftFinding, now_ms: int
    ) -> None:
        model = release.ref.model
        detail = {
            "model": model,
            "release": release.ref.name,
            "kind": finding.kind,
            "features": [channel.name for channel in finding.channels],
            "channels": msgspec.to_builtins(finding.channels),
            "arms": finding.arms,
            "alike": finding.alike,
            "blamed_release": finding.blamed_release,
            "since_ms": finding.since * self._period_ms,
        }
        if not finding.open:
            if not self._still_open(connection, model) and journal.close_alert(
                connection, now_ms, DRIFT, model
            ):
                journal.add_event(connection, now_ms, DRIFT, model, finding.summary)
        elif journal.open_alert(connection, now_ms, DRIFT, model, finding.summary, detail):
            journal.add_event(connection, now_ms, DRIFT, model, finding.summary, detail)

    def _still_open(self, connection: sa.Connection, model: str) -> bool:
        """Whether another release of the model that still runs sees the same drift."""
        oldest = self._clock() // self._period_ms - STALE_PERIODS
        for digest, (stored, period) in windows.drift_states(connection).items():
            release = self._catalog.get(connection, digest)
            if release is not None and release.ref.model == model and period >= oldest:
                state = msgspec.json.decode(stored, type=DriftState)
                if state.since is not None:
                    return True
        return False
