"""How releases fared over time: sums by hour or by day."""

from typing import Literal

import msgspec
import sqlalchemy as sa

from edge_core.messages.telemetry import FallbackCounts
from fleet_server.domain.estimation import Estimate
from fleet_server.services import estimated
from fleet_server.services.catalog import Catalog, Release
from fleet_server.services.clock import Clock
from fleet_server.services.errors import InvalidRequest, NotFound
from fleet_server.services.estimated import Calibration
from fleet_server.storage import rollups
from fleet_server.storage.database import Database
from fleet_server.storage.rollups import DAY_MS, HOUR_MS, RollupCounts, RollupKey

Resolution = Literal["hour", "day"]
MOST_SUMS = 20_000
"""Stored sums that one answer may be made of."""
USUAL = {"hour": 48 * HOUR_MS, "day": 90 * DAY_MS}
"""How far back an answer goes where nothing is asked."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of the past."""

    model: str
    release: str | None = None
    """``model@version`` or its digest; all of the model's where left out."""
    slice_: str | None = None
    """``name=value``; over all slices where left out."""
    from_ms: int | None = None
    to_ms: int | None = None
    """Hours or days that begin in [from, to)."""
    resolution: Resolution = "hour"


class HistoryView(msgspec.Struct, frozen=True, kw_only=True):
    """One release and arm in one hour or day, over all devices."""

    start_ms: int
    release: str
    arm: str
    windows: int
    rows: int
    errors: int
    right: int
    wrong: int
    accuracy: float | None
    """Of the rows whose label came in this time."""
    late: int
    dropped: int
    agree: int
    disagree: int
    both_right: int
    only_active_right: int
    only_shadow_right: int
    both_wrong: int
    fallbacks: dict[str, int]
    """Rows of the baseline by cause."""
    latency: list[int]
    """Rows by power-of-two bin of microseconds."""
    estimated: Estimate | None
    """Accuracy over all its rows, by what confidence meant where labels came; blind to concept
    drift."""


class History:
    """Read-only questions on the past."""

    def __init__(
        self, database: Database, catalog: Catalog, clock: Clock, rows_per_observation: float
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._clock = clock
        self._rows_per_observation = rows_per_observation

    def tell(self, asked: Question) -> list[HistoryView]:
        """Figures of a model's releases, oldest first.

        Raises:
            NotFound: no such model or release.
            InvalidRequest: the answer would be too long, or the times are none.
        """
        to_ms = self._clock() + 1 if asked.to_ms is None else asked.to_ms
        from_ms = to_ms - USUAL[asked.resolution] if asked.from_ms is None else asked.from_ms
        if from_ms >= to_ms:
            raise InvalidRequest("from_ms has to lie before to_ms")
        with self._database.read() as connection:
            known = self._releases(connection, asked)
            found = rollups.between(
                connection,
                by_hour=asked.resolution == "hour",
                digests=sorted(known),
                from_ms=from_ms,
                to_ms=to_ms,
                limit=MOST_SUMS + 1,
            )
            meant = {
                digest: estimated.calibration(connection, release, asked.slice_, self._clock())
                for digest, release in known.items()
                if any(key.digest == digest for key, _ in found)
            }
        if len(found) > MOST_SUMS:
            raise InvalidRequest("the answer is too long: ask for less time, a release, or days")
        sums: dict[RollupKey, RollupCounts] = {}
        for key, counts in found:
            if rollups.covers(key, asked.slice_):
                sums.setdefault(key._replace(slice=""), RollupCounts()).merge(counts)
        return [
            self._view(key, counts, known[key.digest], meant[key.digest])
            for key, counts in sums.items()
        ]

    def _view(
        self, key: RollupKey, counts: RollupCounts, release: Release, meant: Calibration
    ) -> HistoryView:
        estimate = None
        if key.arm not in estimated.UNLIKE:
            estimate = estimated.accuracy(release, counts, meant, self._rows_per_observation)
        return _view(key, counts, release.ref.name, estimate)

    def _releases(self, connection: sa.Connection, asked: Question) -> dict[str, Release]:
        """Each release that is asked for, by digest."""
        found = {
            known.ref.digest: known
            for known in self._catalog.every(connection)
            if known.ref.model == asked.model
            and asked.release in (None, known.ref.name, known.ref.digest)
        }
        if not found:
            what = asked.model if asked.release is None else asked.release
            raise NotFound(f"no release {what[:128]!r} of {asked.model[:64]!r} is known")
        return found


def _view(
    key: RollupKey, counts: RollupCounts, name: str, estimate: Estimate | None
) -> HistoryView:
    labelled = counts.right + counts.wrong
    causes = zip(FallbackCounts.__struct_fields__, counts.causes.tolist(), strict=False)
    figures = {
        field: getattr(counts, field)
        for field in HistoryView.__struct_fields__
        if field in RollupCounts.__struct_fields__ and field != "latency"
    }
    return HistoryView(
        start_ms=key.start_ms,
        release=name,
        arm=key.arm,
        accuracy=counts.right / labelled if labelled else None,
        fallbacks=dict(causes),
        latency=counts.latency.tolist(),
        estimated=estimate,
        **figures,
    )
