"""Watches every release's merged windows for a change of the world."""

import math
from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from edge_core.stats import noise
from fleet_server.domain import drift as detector
from fleet_server.domain.drift import DriftFinding, DriftState, Settings, WatchedChannel
from fleet_server.services.catalog import Catalog, Release
from fleet_server.services.clock import Clock
from fleet_server.services.evidence import DRIFT
from fleet_server.storage import drift as periods
from fleet_server.storage import journal
from fleet_server.storage.database import Database
from fleet_server.storage.drift import PeriodCounts

KEPT_PERIODS = 500
STALE_PERIODS = 10
"""A detector that could judge nothing for so long has no say: hardly anyone runs its release."""
UNWATCHED = ("fallback",)
GONE = "no release that still runs sees it any more"


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
        self._first: int | None = None

    def observe(self) -> None:
        """Take in every period that has ended since the last call."""
        now = self._clock()
        current = now // self._period_ms
        if self._seen == current:
            return
        with self._database.write() as connection:
            states = periods.drift_states(connection)
            for digest, found in self._finished(connection, states, current).items():
                release = self._catalog.get(connection, digest)
                if release is not None:
                    self._watch(connection, release, found, states.get(digest), now)
            self._settle(connection, current, now)
            periods.forget_periods(connection, current - KEPT_PERIODS)
        self._seen = current

    def _finished(
        self, connection: sa.Connection, states: dict[str, tuple[bytes, int]], current: int
    ) -> dict[str, list[PeriodCounts]]:
        """Periods that a release's detector has not seen, by digest, oldest first."""
        oldest = min((period for _, period in states.values()), default=-1)
        found: dict[str, list[PeriodCounts]] = {}
        for counts in periods.periods_between(connection, oldest, current):
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
        noises = periods.noise_of(connection, release.ref.digest)
        for period in sorted({counts.period for counts in found}):
            arms = {c.arm: (c.rows, c.counts) for c in found if c.period == period}
            rows = sum(count for count, _ in arms.values())
            blur = _noise(release, rows, noises.get(period, 0))
            state, finding = detector.observe(state, channels, arms, period, self._settings, blur)
            periods.put_drift_state(
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
            if model not in self._drifting(connection):
                self._close(connection, model, finding.summary, now_ms)
        elif journal.open_alert(connection, now_ms, DRIFT, model, finding.summary, detail):
            journal.add_event(connection, now_ms, DRIFT, model, finding.summary, detail)

    def _settle(self, connection: sa.Connection, current: int, now_ms: int) -> None:
        """Let go of drifts that nobody is left to see the end of, and close their alerts.

        A server that was down has heard nobody, so silence counts from its first look only.
        """
        if self._first is None:
            self._first = current
        oldest = current - STALE_PERIODS
        for digest, (stored, period) in periods.drift_states(connection).items():
            state = msgspec.json.decode(stored, type=DriftState)
            if state.since is not None and max(state.judged, self._first) < oldest:
                rested = msgspec.json.encode(detector.at_rest(state))
                periods.put_drift_state(connection, digest, rested, period)
        drifting = self._drifting(connection)
        for alert in journal.open_alerts(connection, DRIFT):
            if alert.subject not in drifting:
                self._close(connection, alert.subject, GONE, now_ms)

    def _close(self, connection: sa.Connection, model: str, text: str, now_ms: int) -> None:
        if journal.close_alert(connection, now_ms, DRIFT, model):
            journal.add_event(connection, now_ms, DRIFT, model, text)

    def _drifting(self, connection: sa.Connection) -> set[str]:
        """Models of which a release sees a drift that has not ended."""
        found = set()
        for digest, (stored, _) in periods.drift_states(connection).items():
            release = self._catalog.get(connection, digest)
            state = msgspec.json.decode(stored, type=DriftState)
            if release is not None and state.since is not None:
                found.add(release.ref.model)
        return found


def _noise(release: Release, rows: int, noisy_windows: int) -> list[float]:
    """By channel, the mean total variation that noise alone makes of merged periods.

    The sum of so many noises is nearly normal, whose mean distance from 0 is sqrt(2 / pi) of its
    standard deviation.
    """
    schema, merged = release.window_schema, detector.MERGED_PERIODS
    if not noisy_windows or not rows:
        return []
    channels = zip(schema.channel_ratios, schema.sizes, schema.values, strict=True)
    return [
        size
        * math.sqrt(2 / math.pi * merged * noisy_windows * noise.variance(ratio))
        / (2 * merged * rows * values)
        for ratio, size, values in channels
    ]
