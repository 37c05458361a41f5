"""Sums one batch's channel counts by release and arm, for the drift detectors."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from edge_core.messages.telemetry import StatsWindow
from fleet_server.services import screening
from fleet_server.storage import drift

Int64 = npt.NDArray[np.int64]


class PeriodFold:
    """Channel counts of one batch in one drift period; written once at its end."""

    def __init__(self, connection: sa.Connection, period: int) -> None:
        self._connection = connection
        self._period = period
        self._sums: dict[tuple[str, str], tuple[int, Int64]] = {}
        self._noises: Counter[str] = Counter()

    def add(self, window: StatsWindow, *, noisy: bool) -> None:
        """Add one window that was stored now for the first time."""
        if not window.counts:
            return
        key = (window.release.digest, window.arm)
        self._noises[window.release.digest] += noisy
        rows, counts = self._sums.get(key, (0, np.int64(0)))
        self._sums[key] = (rows + window.rows, counts + screening.counts(window))

    def write(self) -> None:
        """Add the batch to what is stored."""
        for (digest, arm), (rows, counts) in self._sums.items():
            drift.add_to_period(self._connection, digest, arm, self._period, rows, counts)
        for digest, count in self._noises.items():
            if count:
                drift.add_noise(self._connection, digest, self._period, count)
