"""Watches every release's merged windows for a change of the world."""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from edge_core.stats import noise
from fleet_server.domain.drifting import detector
from fleet_server.domain.drifting.expectation import Period, Seen, Settings
from fleet_server.domain.drifting.finding import DriftFinding
from fleet_server.domain.drifting.measures import Channels, WatchedChannel
from fleet_server.domain.drifting.state import EVERYONE, DriftState
from fleet_server.services import drift_response
from fleet_server.services.catalog import Catalog, Release
from fleet_server.services.clock import Clock
from fleet_server.services.evidence import DRIFT
from fleet_server.storage import drift as periods
from fleet_server.storage import journal
from fleet_server.storage.database import Database
from fleet_server.storage.drift import PeriodCounts, PeriodKey, StoredState

KEPT_PERIODS = 500
STALE_PERIODS = 10
"""A detector that could judge nothing for so long has no say: hardly anyone runs its release."""
MOST_SLICES = 32
UNWATCHED = ("fallback",)
UNORDERED = ("predicted",)
GONE = "no release that still runs sees it any more"
WRONG = "wrong answers"
HOUR_MS = 3_600_000

Float64 = npt.NDArray[np.float64]
Found = list[tuple[PeriodKey, PeriodCounts]]


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
        self._channels: dict[str, Channels] = {}
        self._seen: int | None = None
        self._first: int | None = None

    def observe(self) -> None:
        """Take in every period that has ended since the last call."""
        now = self._clock()
        current = now // self._period_ms
        if self._seen == current:
            return
        with self._database.write() as connection:
            states = periods.states(connection)
            for digest, found in self._finished(connection, states, current).items():
                release = self._catalog.get(connection, digest)
                if release is not None:
                    self._watch(connection, release, found, states.get(digest), now)
            self._settle(connection, current, now)
            periods.forget_periods(connection, current - KEPT_PERIODS)
        self._seen = current

    def _finished(
        self, connection: sa.Connection, states: dict[str, StoredState], current: int
    ) -> dict[str, Found]:
        """Periods that a release's detector has not seen, by digest, oldest first."""
        oldest = min((stored.period for stored in states.values()), default=-1)
        found: dict[str, Found] = {}
        for key, counts in periods.periods_between(connection, oldest, current):
            seen = states[key.digest].period if key.digest in states else -1
            if key.period > seen and key.arm not in UNWATCHED:
                found.setdefault(key.digest, []).append((key, counts))
        return found

    def _watch(
        self,
        connection: sa.Connection,
        release: Release,
        found: Found,
        stored: StoredState | None,
        now_ms: int,
    ) -> None:
        digest = release.ref.digest
        channels = self._channels_of(release)
        state = _state(stored, channels)
        noises = periods.noise_of(connection, digest)
        last = -1
        for last in sorted({key.period for key, _ in found}):
            seen = _by_slice([pair for pair in found if pair[0].period == last], release)
            rows = sum(arm.rows for arm in seen[EVERYONE].values())
            told = detector.observe(
                state,
                channels,
                seen,
                last,
                last * self._period_ms // HOUR_MS,
                self._settings,
                _noise(release, rows, noises.get(last, 0)),
            )
            if told is not None:
                self._tell(connection, release, told, now_ms)
        season = state.pack_season() if state.season_changed else None
        periods.put_state(connection, digest, state.pack(), season, last)

    def _channels_of(self, release: Release) -> Channels:
        digest = release.ref.digest
        if digest not in self._channels:
            self._channels[digest] = Channels(watched(release))
        return self._channels[digest]

    def _tell(
        self, connection: sa.Connection, release: Release, finding: DriftFinding, now_ms: int
    ) -> None:
        model = release.ref.model
        if not finding.open:
            if model not in self._drifting(connection):
                self._close(connection, model, finding.summary, now_ms)
            return
        detail = {
            "model": model,
            "release": release.ref.name,
            "kind": finding.kind,
            "features": finding.channels,
            "slices": finding.slices,
            "figures": msgspec.to_builtins(finding.figures),
            "arms": finding.arms,
            "alike": finding.alike,
            "blamed_release": finding.blamed_release,
            "like_hour": finding.like_hour,
            "response": finding.response,
            "since_ms": finding.since * self._period_ms,
        }
        if journal.open_alert(connection, now_ms, DRIFT, model, finding.summary, detail):
            journal.add_event(connection, now_ms, DRIFT, model, finding.summary, detail)
            drift_response.by_policy(connection, model, finding, now_ms)

    def _settle(self, connection: sa.Connection, current: int, now_ms: int) -> None:
        """Let go of drifts that nobody is left to see the end of, and close their alerts.

        A server that was down has heard nobody, so silence counts from its first look only.
        """
        if self._first is None:
            self._first = current
        oldest = current - STALE_PERIODS
        for digest, stored in periods.states(connection).items():
            state = self._opened(connection, digest, stored)
            if state is not None and max(state.memory.judged, self._first) < oldest:
                state.rest()
                periods.put_state(connection, digest, state.pack(), None, stored.period)
        drifting = self._drifting(connection)
        for alert in journal.open_alerts(connection, DRIFT):
            if alert.subject not in drifting:
                self._close(connection, alert.subject, GONE, now_ms)

    def _close(self, connection: sa.Connection, model: str, text: str, now_ms: int) -> None:
        drift_response.end_policy(connection, model, text, now_ms)
        if journal.close_alert(connection, now_ms, DRIFT, model):
            journal.add_event(connection, now_ms, DRIFT, model, text)

    def _drifting(self, connection: sa.Connection) -> set[str]:
        """Models of which a release sees a drift that has not ended."""
        found = set()
        for digest, stored in periods.states(connection).items():
            release = self._catalog.get(connection, digest)
            if release is not None and self._opened(connection, digest, stored) is not None:
                found.add(release.ref.model)
        return found

    def _opened(
        self, connection: sa.Connection, digest: str, stored: StoredState
    ) -> DriftState | None:
        """What a detector remembers, where it sees a drift now."""
        release = self._catalog.get(connection, digest)
        if release is None:
            return None
        state = _state(stored, self._channels_of(release))
        return state if state.memory.since is not None else None


def watched(release: Release) -> list[WatchedChannel]:
    """The channels of a release's reference, and whether its answers are right."""
    channels = [
        WatchedChannel(
            name=channel.name,
            kind=channel.kind,
            usual=tuple(channel.counts),
            ordered=channel.name not in UNORDERED,
        )
        for channel in release.reference.channels
    ]
    return [*channels, WatchedChannel(name=WRONG, kind="outcome", usual=(0, 0), ordered=False)]


def _state(stored: StoredState | None, channels: Channels) -> DriftState:
    found = None
    if stored is not None:
        found = DriftState.unpack(stored.state, stored.season, len(channels))
    return found or DriftState(len(channels))


def _by_slice(found: Found, release: Release) -> Period:
    """All rows and those of each value of each declared slice, by arm."""
    seen: dict[str, dict[str, Seen]] = {EVERYONE: {}}
    for key, counts in found:
        outcome = np.array([counts.right, counts.wrong], np.int64)
        flat = np.concatenate([counts.counts, outcome])
        names = [part for part in key.slice.split(",") if part]
        for name in (EVERYONE, *names):
            arms = seen.setdefault(name, {})
            before = arms.get(key.arm, Seen(0, np.zeros_like(flat)))
            arms[key.arm] = Seen(before.rows + counts.rows, before.counts + flat)
    kept = {EVERYONE, *_declared(release)[:MOST_SLICES]}
    return {name: arms for name, arms in seen.items() if name in kept}


def _declared(release: Release) -> Sequence[str]:
    return [f"{name}={value}" for name, values in release.window_schema.slices for value in values]


def _noise(release: Release, rows: int, noisy_windows: int) -> Float64 | None:
    """By channel, standard deviation that noise for privacy gives one count, over the sum."""
    schema = release.window_schema
    if not noisy_windows or not rows:
        return None
    found = [
        math.sqrt(noisy_windows * noise.variance(ratio)) / (rows * values)
        for ratio, values in zip(schema.channel_ratios, schema.values, strict=True)
    ]
    labels = math.sqrt(noisy_windows * noise.variance(schema.outcome_ratio)) / rows
    return np.array([*found, labels])
