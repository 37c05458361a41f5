"""Rates of bad rows that a release must not raise, whatever its accuracy: counts only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleet_server.domain import weighing
from fleet_server.domain.columns import Columns
from fleet_server.domain.plan import StageKind

Float64 = npt.NDArray[np.float64]

FAST_SHARE = 0.95


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rates:
    """Bad and good rows by device, float64 [devices]."""

    bad: Float64
    good: Float64

    @property
    def rows(self) -> Float64:
        """All rows."""
        return self.bad + self.good


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Compared:
    """The candidate's rates beside the incumbent's."""

    ours: Rates
    same_devices: Rates | None
    """Of the incumbent on the same devices and rows."""
    control: Rates | None
    """Of the incumbent on the concurrent control."""


def watched(kind: StageKind, method: int) -> Sequence[str]:
    """Names of the guardrails of one kind of stage: fields of the plan's ``metrics``."""
    if kind == "shadow":
        return ("errors", "scores") if method >= 2 else ("errors",)
    return ("errors", "latency", "fallback", "scores") if method >= 2 else ("errors", "latency")


def compared(
    metric: str, kind: StageKind, cells: Columns, *, drifting: bool, capped: bool
) -> Compared:
    """Rates for one guardrail.

    In a drift the control may have drifted in another way than the candidate's devices.
    """
    ours = cells.of_arm("shadow" if kind == "shadow" else "candidate")
    control = cells.of_arm("control")
    if metric == "latency":
        limit = _slow(control, capped=capped)
        return Compared(
            ours=_latency(ours, limit), same_devices=None, control=_latency(control, limit)
        )
    if metric == "fallback":
        fallback = cells.of_arm("fallback")
        return Compared(
            ours=_fallbacks(fallback, ours, cells.candidates),
            same_devices=None,
            control=None if drifting else _fallbacks(fallback, control, cells.controls),
        )
    bad, all_rows = ("unusual", "scored") if metric == "scores" else ("errors", "rows")
    beside = cells.of_arm("incumbent" if kind == "shadow" else "shadow")
    chosen = np.zeros(cells.devices, bool)
    chosen[ours.device] = True
    beside = beside.take(chosen[beside.device])
    return Compared(
        ours=_rates(ours, bad, all_rows),
        same_devices=_rates(beside, bad, all_rows),
        control=None if drifting else _rates(control, bad, all_rows),
    )


def _rates(cells: Columns, bad: str, all_rows: str) -> Rates:
    found = cells.by_device(cells[bad])
    rows = cells.by_device(cells[all_rows])
    # A row that failed is no row that was answered; an unusual one is one of those scored.
    good = rows if bad == "errors" else np.maximum(rows - found, 0.0)
    return Rates(bad=found, good=good)


def _fallbacks(fallback: Columns, serving: Columns, chosen: npt.NDArray[np.bool_]) -> Rates:
    bad = np.where(chosen, fallback.by_device(fallback["rows"]), 0.0)
    return Rates(bad=bad, good=serving.by_device(serving["rows"]))


def _slow(control: Columns, *, capped: bool) -> int:
    """First latency bin that is slower than 19 of 20 of the control's rows."""
    rows = control.by_device(control.latency.sum(axis=1))
    share = weighing.counting(rows) / np.maximum(rows, 1.0) if capped else np.ones(len(rows))
    merged = share[control.device] @ control.latency
    return int(np.searchsorted(np.cumsum(merged), FAST_SHARE * merged.sum())) + 1


def _latency(cells: Columns, limit: int) -> Rates:
    return Rates(
        bad=cells.by_device(cells.latency[:, limit:].sum(axis=1)),
        good=cells.by_device(cells.latency[:, :limit].sum(axis=1)),
    )
