"""What joined labels change in the sums: outcomes, delays, cost, and what drift detectors see."""

from collections import Counter

import numpy as np
import sqlalchemy as sa

from fleet_server.domain import budget, labelling
from fleet_server.domain.labelling import Answered, OutcomeKey
from fleet_server.services.catalog import Release
from fleet_server.services.folding import slice_key
from fleet_server.storage import costs, drift, labels
from fleet_server.storage.costs import CostCounts, CostKey
from fleet_server.storage.drift import PeriodCounts, PeriodKey
from fleet_server.storage.predictions import StoredPrediction


class LabelSums:
    """Sums over one transaction's labels; written once at its end."""

    def __init__(self, connection: sa.Connection, now_ms: int, period: int) -> None:
        self._connection = connection
        self._day = budget.day_of(now_ms)
        self._period = period
        self._outcomes: Counter[OutcomeKey] = Counter()
        self._delays: Counter[tuple[str, int]] = Counter()
        self._costs: dict[CostKey, CostCounts] = {}
        self._seen: dict[PeriodKey, PeriodCounts] = {}

    def change(
        self,
        row: StoredPrediction,
        release: Release,
        before: str | None,
        label: str | None,
        known_ms: int,
    ) -> None:
        """Count a prediction's label in the place of the one that stood.

        Only the first one is bought, has a delay, and is seen by drift detectors: they look at what
        comes in now, and a correction belongs to a period that they have judged.
        """
        self._outcomes.update(labelling.change(answered(row), before, label))
        if before is not None or label is None:
            return
        self._delays[row.digest, labelling.delay_bin(row.at_ms, known_ms)] += 1
        spent = CostKey(self._day, row.digest, row.target)
        self._costs.setdefault(spent, CostCounts()).merge(CostCounts(labels=1))
        right = label == row.predicted
        seen = PeriodCounts(
            right=int(right),
            wrong=int(not right),
            counts=np.zeros(release.layout.total, np.int64),
        )
        key = PeriodKey(row.digest, row.arm, self._period, slice_key(row.slices))
        if key in self._seen:
            self._seen[key].merge(seen)
        else:
            self._seen[key] = seen

    def write(self) -> None:
        """Add everything to what is stored."""
        labels.add_outcomes(self._connection, self._outcomes)
        labels.add_delays(self._connection, self._delays)
        costs.add(self._connection, self._costs)
        drift.add_to_periods(self._connection, self._seen)


def answered(row: StoredPrediction) -> Answered:
    """What counting a prediction's label needs."""
    return Answered(
        digest=row.digest,
        policy=row.policy,
        arm=row.arm,
        slices=row.slices,
        predicted=row.predicted,
        at_ms=row.at_ms,
    )
