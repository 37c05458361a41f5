"""Sums one batch's windows by hour, in the transaction that takes them in.

So a window is in the hours and days exactly when it is in the receipts: nothing has to be added up
later, a late window adds to the hour that it belongs to, and old windows can go at any time.
"""

import msgspec
import numpy as np
import sqlalchemy as sa

from edge_core.messages.telemetry import PairedCounts, StatsWindow
from fleet_server.services import screening
from fleet_server.storage import rollups
from fleet_server.storage.rollups import HOUR_MS, RollupCounts, RollupKey


class RollupFold:
    """Hours of one batch; written once at its end."""

    def __init__(self, connection: sa.Connection, oldest_hour_ms: int) -> None:
        self._connection = connection
        self._oldest = oldest_hour_ms
        self._sums: dict[RollupKey, RollupCounts] = {}

    def add(self, window: StatsWindow, slice_key: str) -> None:
        """Add one window that was stored now for the first time, to the hour that it opened in."""
        key = RollupKey(
            window.opened_ms - window.opened_ms % HOUR_MS,
            window.release.digest,
            window.arm,
            slice_key,
        )
        self._sums.setdefault(key, RollupCounts()).merge(_counts(window))

    def write(self) -> None:
        """Add the batch to what is stored."""
        if self._sums:
            rollups.add(self._connection, self._sums, self._oldest)


def _counts(window: StatsWindow) -> RollupCounts:
    right, wrong = screening.labelled(window)
    paired = window.paired or PairedCounts()
    causes = msgspec.structs.astuple(window.fallbacks) if window.fallbacks is not None else ()
    return RollupCounts(
        windows=1,
        rows=window.rows,
        errors=window.errors,
        right=right,
        wrong=wrong,
        late=window.late,
        dropped=window.dropped,
        agree=paired.agree,
        disagree=paired.disagree,
        both_right=paired.both_right,
        only_active_right=paired.only_active_right,
        only_shadow_right=paired.only_shadow_right,
        both_wrong=paired.both_wrong,
        latency=np.frombuffer(window.latency, dtype="<i8").astype(np.int64),
        counts=screening.counts(window),
        causes=np.array(causes, dtype=np.int64),
        right_bins=np.frombuffer(window.right, dtype="<i8").astype(np.int64),
        wrong_bins=np.frombuffer(window.wrong, dtype="<i8").astype(np.int64),
    )
