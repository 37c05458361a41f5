"""Sums one batch's channel counts by release and arm, for the drift detectors."""

from collections import Counter

import numpy as np
import sqlalchemy as sa

from edge_core.messages.telemetry import StatsWindow
from fleet_server.domain.voices import Voices
from fleet_server.services import screening
from fleet_server.storage import drift
from fleet_server.storage.drift import PeriodCounts, PeriodKey


class PeriodFold:
    """Channel counts of one batch in one drift period; written once at its end."""

    def __init__(self, connection: sa.Connection, period: int, voices: Voices) -> None:
        self._connection = connection
        self._voices = voices
        self._period = period
        self._sums: dict[PeriodKey, PeriodCounts] = {}
        self._noises: Counter[str] = Counter()

    def add(self, window: StatsWindow, slice_key: str, *, noisy: bool) -> None:
        """Add one window that was stored now for the first time, as far as its device counts."""
        if not window.counts:
            return
        digest, arm, period = window.release.digest, window.arm, self._period
        share = self._voices.share(digest, arm, period, window.device, window.rows)
        if not share:
            return
        key = PeriodKey(digest, arm, period, slice_key)
        own = _thinned(window, share)
        if key in self._sums:
            self._sums[key].merge(own)
        else:
            self._sums[key] = own
        self._noises[digest] += noisy

    def write(self) -> None:
        """Add the batch to what is stored."""
        drift.add_to_periods(self._connection, self._sums)
        for digest, count in self._noises.items():
            if count:
                drift.add_noise(self._connection, digest, self._period, count)


def _thinned(window: StatsWindow, share: float) -> PeriodCounts:
    """Part of a window: fewer rows, of which as many are of each kind."""
    right, wrong = screening.labelled(window)
    counts = screening.counts(window)
    if share < 1:
        counts = np.rint(counts * share).astype(np.int64)
    return PeriodCounts(
        rows=round(window.rows * share),
        right=round(right * share),
        wrong=round(wrong * share),
        counts=counts,
    )
