"""Sums one batch of accepted windows before they are added to what is stored."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import sqlalchemy as sa

from edge_core.messages.telemetry import PairedCounts, StatsWindow
from fleet_server.domain import budget
from fleet_server.domain.voices import Voices
from fleet_server.services import screening
from fleet_server.services.period_fold import PeriodFold
from fleet_server.services.rollup_fold import RollupFold
from fleet_server.storage import costs, windows
from fleet_server.storage.costs import CostCounts, CostKey
from fleet_server.storage.windows import CellCounts, CellKey, Totals, TotalsKey


def slice_key(slices: dict[str, str]) -> str:
    """``name=value,...`` in the order of names."""
    return ",".join(f"{name}={value}" for name, value in sorted(slices.items()))


class Fold:
    """Totals, evidence cells, drift periods and hours of one batch; written once at its end."""

    def __init__(
        self,
        connection: sa.Connection,
        period: int,
        now_ms: int,
        voices: Voices,
        oldest_hour_ms: int = 0,
    ) -> None:
        self._connection = connection
        self._now = now_ms
        self._totals: dict[tuple[str, str, str], Totals] = {}
        self._changed: set[tuple[str, str, str]] = set()
        self._cells: dict[CellKey, CellCounts] = {}
        self._periods = PeriodFold(connection, period, voices)
        self._rollups = RollupFold(connection, oldest_hour_ms)
        self._costs: dict[CostKey, CostCounts] = {}
        self._consumers: Counter[tuple[str, str]] = Counter()

    def load(self, keys: Sequence[TotalsKey]) -> None:
        """Read several sums at once; any other is read when it is asked for."""
        wanted = [key for key in dict.fromkeys(keys) if key not in self._totals]
        self._totals |= windows.every_total(self._connection, wanted)

    def totals(self, window: StatsWindow) -> Totals:
        """Sums of the window's device, release and arm, this batch's earlier windows included."""
        key = _totals_key(window)
        if key not in self._totals:
            self.load([key])
        return self._totals[key]

    def add(
        self,
        window: StatsWindow,
        place: tuple[str, int],
        *,
        noisy: bool,
        scores: tuple[int, int] = (0, 0),
    ) -> None:
        """Add one window that was stored now for the first time.

        ``place`` is (rollout, stage), ``scores`` as :func:`screening.scores` counts them.
        """
        right, wrong = screening.labelled(window)
        self._changed.add(_totals_key(window))
        totals = self.totals(window)
        totals.rows += window.rows
        totals.errors += window.errors
        totals.right += right
        totals.wrong += wrong
        paired = window.paired or PairedCounts()
        totals.paired += paired.agree + paired.disagree
        totals.paired_labelled += screening.paired_labels(window)
        digest = window.release.digest
        slices = slice_key(window.slices)
        key = CellKey(*place, window.device, digest, window.arm, slices)
        self._cells.setdefault(key, CellCounts()).merge(_cell(window, right, wrong, paired, scores))
        spent = CostKey(budget.day_of(self._now), digest, window.target)
        self._costs.setdefault(spent, CostCounts()).merge(_cost(window, right + wrong))
        for name, asked in window.cost.consumers.items():
            self._consumers[window.release.model, name] += asked
        self._periods.add(window, slices, noisy=noisy)
        self._rollups.add(window, slices)

    def write(self) -> None:
        """Add the batch to what is stored; what was only looked at leaves no row."""
        windows.put_totals(self._connection, {key: self._totals[key] for key in self._changed})
        windows.add_to_cells(self._connection, self._cells)
        self._periods.write()
        self._rollups.write()
        costs.add(self._connection, self._costs)
        for (model, name), asked in self._consumers.items():
            costs.add_consumer(self._connection, model, name, asked, self._now)


def _totals_key(window: StatsWindow) -> tuple[str, str, str]:
    return window.device, window.release.digest, window.arm


def _cost(window: StatsWindow, labels: int) -> CostCounts:
    """A shadow's time is no part of what predictions cost."""
    spent, shadow = window.cost, window.arm == "shadow"
    return CostCounts(
        predictions=0 if shadow else window.rows,
        cached=spent.cached,
        fallbacks=window.rows if window.arm == "fallback" else 0,
        shadowed=window.rows if shadow else 0,
        cpu_us=0 if shadow else spent.cpu_us,
        shadow_cpu_us=spent.cpu_us if shadow else 0,
        sent_bytes=spent.sent_bytes,
        span_ms=spent.span_ms,
        labels=max(0, labels),
    )


def _cell(
    window: StatsWindow, right: int, wrong: int, paired: PairedCounts, scores: tuple[int, int]
) -> CellCounts:
    return CellCounts(
        rows=window.rows,
        errors=window.errors,
        right=right,
        wrong=wrong,
        latency=np.frombuffer(window.latency, dtype="<i8").tolist(),
        agree=paired.agree,
        disagree=paired.disagree,
        both_right=paired.both_right,
        only_active_right=paired.only_active_right,
        only_shadow_right=paired.only_shadow_right,
        both_wrong=paired.both_wrong,
        scored=scores[0],
        unusual=scores[1],
    )
