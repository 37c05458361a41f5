"""How the candidate compares with the incumbent: figures from counts. Decides nothing.

Two sources of evidence on accuracy are averaged, which gives an e-value again:

- paired: rows that both releases answered, candidate right minus incumbent right;
- difference-in-differences: candidate devices against a concurrent random control, each row
  minus the device's own rate before the stage.

Rows are not independent. Evidence is tempered for rows that overlap, and a device's rows weigh
less the more there are of them (design effect: Kish, "Survey Sampling", 1965), so that no device
counts for more than a fixed number of observations.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest

import msgspec
import numpy as np

from edge_core.messages.telemetry import Arm
from edge_core.stats import sequential
from edge_core.stats.sequential import Counted
from fleet_server.domain.evidence import Baseline, Cell, Evidence
from fleet_server.domain.plan import Plan, Stage

LARGEST_LOG_E = 700.0
PRIOR_OBSERVATIONS = 20.0
"""Weight of the fleet's rate in a device's own; devices differ by about .1 in their rates."""
MOST_BASELINE = 30.0
"""Observations that a baseline is worth at most: it is of another time, with other activities."""
SLICE_MARGIN = 2.0
"""A slice has fewer rows, so it may look worse by this many times the margin."""
LEVELS = 32
"""Baseline rates are rounded to this grid, so that a large fleet is no more work."""
FAST_SHARE = 0.95
RESIDUALS = np.arange(-LEVELS, LEVELS + 1) / LEVELS


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison; ``estimate`` is candidate minus comparison.

    ``e_worse`` is evidence that the candidate is worse by more than ``margin``, ``e_not_worse``
    that it is not worse by more than ``allowed``.
    """

    metric: str
    slice: str | None
    estimate: float | None
    margin: float
    allowed: float
    e_worse: float
    e_not_worse: float
    worse_at: float
    """Roll back when ``e_worse`` reaches this."""
    rows: int
    devices: int


class _Shares(msgspec.Struct, frozen=True, kw_only=True):
    """Bad and good rows by device."""

    bad: dict[str, int]
    good: dict[str, int]

    def weighted(self, plan: Plan, correlation: float) -> Counted:
        bad = good = 0.0
        for device, count in self.bad.items():
            rows = count + self.good[device]
            weight = _weight(plan, rows, correlation)
            bad, good = bad + weight * count, good + weight * self.good[device]
        return sequential.counted([(0.0, good), (1.0, bad)])


def figures(stage: Stage, plan: Plan, evidence: Evidence) -> list[Figure]:
    """Accuracy overall and per slice, then errors and, where the candidate serves, latency.

    Noisy evidence has no figures of accuracy: bets on it would be bets on the noise.
    """
    guards = 1 + len(evidence.slices) + (2 if stage.kind != "shadow" else 1)
    worse_at = guards / plan.alpha
    names = [] if evidence.noisy else [None, *evidence.slices]
    found = [_accuracy(stage, plan, evidence, name, worse_at) for name in names]
    found.append(_errors(stage, plan, evidence, worse_at))
    if stage.kind != "shadow":
        found.append(_latency(plan, evidence.cells, worse_at))
    return found


def _accuracy(
    stage: Stage, plan: Plan, evidence: Evidence, slice_: str | None, worse_at: float
) -> Figure:
    cells = [cell for cell in evidence.cells if slice_ is None or slice_ in cell.slice.split(",")]
    shadows = [cell for cell in cells if cell.arm == "shadow" and _pairs(cell)]
    serving = [cell for cell in cells if cell.arm == "candidate" and cell.right + cell.wrong > 0]
    allowed = plan.delta * (SLICE_MARGIN if slice_ else 1.0)
    paired = _paired(plan, shadows, candidate_is_shadow=stage.kind == "shadow")
    controls = [cell for cell in cells if cell.arm == "control"]
    arms = candidate, control = (
        _residuals(plan, serving, evidence.baselines),
        _residuals(plan, controls, evidence.baselines),
    )
    worse, fine = [], []
    if paired.total:
        # (difference + 1) / 2 lies in [0, 1].
        fine.append(sequential.above(_halved(paired), (1 - allowed) / 2))
        worse.append(sequential.above(_halved(paired.negated()), (1 + plan.delta) / 2))
    # In a drift the rates before the stage say little; rows that both answered still do.
    if candidate.total and control.total and not evidence.drifting:
        fine.append(sequential.difference_above(candidate, control, -allowed))
        worse.append(
            sequential.difference_above(candidate.negated(), control.negated(), plan.delta)
        )
    return Figure(
        metric="accuracy",
        slice=slice_,
        estimate=_portable(paired.mean) if paired.mean is not None else _difference(*arms),
        margin=plan.delta,
        allowed=allowed,
        e_worse=_e(plan, worse),
        e_not_worse=_e(plan, fine),
        worse_at=worse_at,
        rows=sum(map(_pairs, shadows)) or sum(cell.right + cell.wrong for cell in serving),
        devices=len({cell.device for cell in [*shadows, *serving]}),
    )


def _pairs(cell: Cell) -> int:
    """Labelled rows that both releases answered."""
    return cell.both_right + cell.only_active_right + cell.only_shadow_right + cell.both_wrong


def _paired(plan: Plan, shadows: Iterable[Cell], *, candidate_is_shadow: bool) -> Counted:
    """Candidate right minus incumbent right, over rows that both answered."""
    lost = same = won = 0.0
    for cells in _by_device(shadows).values():
        weight = _weight(plan, sum(map(_pairs, cells)), plan.device_correlation)
        for cell in cells:
            shadow, active = cell.only_shadow_right, cell.only_active_right
            won += weight * (shadow if candidate_is_shadow else active)
            lost += weight * (active if candidate_is_shadow else shadow)
            same += weight * (cell.both_right + cell.both_wrong)
    return sequential.counted([(-1.0, lost), (0.0, same), (1.0, won)])


def _residuals(plan: Plan, cells: Iterable[Cell], baselines: Sequence[Baseline]) -> Counted:
    """Right minus the device's own rate before the stage, which removes device effects.

    A device's rate is shrunk towards the fleet's; both were fixed before the stage began. The
    less is known of a device, the more its rows may share an error, and the less they weigh.
    """
    before = {(entry.device, entry.slice): entry for entry in baselines}
    right = sum(entry.right for entry in baselines)
    total = right + sum(entry.wrong for entry in baselines)
    fleet = right / total if total else 0.5
    counts = np.zeros(len(RESIDUALS))
    for own in _by_device(cells).values():
        known = [before.get((c.device, c.slice), Baseline(device=c.device)) for c in own]
        observations = sum(k.right + k.wrong for k in known) / plan.rows_per_observation
        correlation = 1 / (PRIOR_OBSERVATIONS + min(observations, MOST_BASELINE))
        weight = _weight(plan, sum(c.right + c.wrong for c in own), correlation)
        for cell, entry in zip(own, known, strict=True):
            level = round(LEVELS * _rate(plan, entry, fleet))
            counts[2 * LEVELS - level] += weight * cell.right
            counts[LEVELS - level] += weight * cell.wrong
    return Counted(RESIDUALS, counts)


def _rate(plan: Plan, known: Baseline, fleet: float) -> float:
    prior = PRIOR_OBSERVATIONS * plan.rows_per_observation
    return (known.right + prior * fleet) / (known.right + known.wrong + prior)


def _errors(stage: Stage, plan: Plan, evidence: Evidence, worse_at: float) -> Figure:
    """Rows without an answer, beside the incumbent's on the same devices and the control's."""
    ours: Arm = "shadow" if stage.kind == "shadow" else "candidate"
    beside: Arm = "incumbent" if stage.kind == "shadow" else "shadow"
    mine = [cell for cell in evidence.cells if cell.arm == ours]
    chosen = {cell.device for cell in mine}
    same = [c for c in evidence.cells if c.arm == beside and c.device in chosen]
    control = [c for c in evidence.cells if c.arm == "control" and not evidence.drifting]

    def split(cell: Cell) -> tuple[int, int]:
        return cell.errors, cell.rows

    comparisons = [(same, plan.device_correlation), (control, 1 / PRIOR_OBSERVATIONS)]
    return _rates(plan, "errors", plan.error_margin, worse_at, mine, comparisons, split)


def _latency(plan: Plan, cells: Sequence[Cell], worse_at: float) -> Figure:
    """Rows slower than 19 of 20 of the control's."""
    mine = [cell for cell in cells if cell.arm == "candidate"]
    control = [cell for cell in cells if cell.arm == "control"]
    merged = [sum(bins) for bins in zip_longest(*(c.latency for c in control), fillvalue=0)]
    limit = int(np.searchsorted(np.cumsum(merged), FAST_SHARE * sum(merged))) + 1

    def split(cell: Cell) -> tuple[int, int]:
        return sum(cell.latency[limit:]), sum(cell.latency[:limit])

    comparisons = [(control, 1 / PRIOR_OBSERVATIONS)]
    return _rates(plan, "latency", plan.latency_margin, worse_at, mine, comparisons, split)


def _rates(
    plan: Plan,
    metric: str,
    margin: float,
    worse_at: float,
    mine: Sequence[Cell],
    comparisons: Sequence[tuple[Sequence[Cell], float]],
    split: Callable[[Cell], tuple[int, int]],
) -> Figure:
    """Compare rates of bad rows; ``split`` gives (bad, good) of a cell.

    Each comparison holds its cells and how alike rows of one device are in it.
    """
    ours = _shares(mine, split)
    worse, fine, estimates = [], [], []
    for cells, correlation in comparisons:
        candidate = ours.weighted(plan, correlation)
        other = _shares(cells, split).weighted(plan, correlation)
        if candidate.total and other.total:
            worse.append(sequential.difference_above(candidate, other, margin))
            fine.append(sequential.difference_above(candidate.negated(), other.negated(), -margin))
            estimates.append(_difference(candidate, other))
    return Figure(
        metric=metric,
        slice=None,
        estimate=estimates[0] if estimates else None,
        margin=margin,
        allowed=margin,
        e_worse=_e(plan, worse),
        e_not_worse=_e(plan, fine),
        worse_at=worse_at,
        rows=sum(ours.bad.values()) + sum(ours.good.values()),
        devices=len(ours.bad),
    )


def _shares(cells: Iterable[Cell], split: Callable[[Cell], tuple[int, int]]) -> _Shares:
    bad: dict[str, int] = {}
    good: dict[str, int] = {}
    for device, own in _by_device(cells).items():
        splits = [split(cell) for cell in own]
        if any(map(sum, splits)):
            bad[device], good[device] = sum(s[0] for s in splits), sum(s[1] for s in splits)
    return _Shares(bad=bad, good=good)


def _weight(plan: Plan, rows: int, correlation: float) -> float:
    """What one of a device's rows counts for, beside the overlap of rows."""
    return 1 / (1 + max(0.0, rows / plan.rows_per_observation - 1) * correlation)


def _by_device(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    found: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        found[cell.device].append(cell)
    # One order for the same evidence, so that sums of fractions are the same numbers again.
    return {device: sorted(found[device], key=lambda c: c.slice) for device in sorted(found)}


def _halved(seen: Counted) -> Counted:
    return Counted((seen.values + 1) / 2, seen.counts)


def _difference(mine: Counted, other: Counted) -> float | None:
    if mine.mean is None or other.mean is None:
        return None
    return _portable(mine.mean - other.mean)


def _e(plan: Plan, log_es: list[float]) -> float:
    """Temper and average."""
    tempered = [sequential.tempered(log_e, plan.rows_per_observation) for log_e in log_es]
    return _portable(math.exp(min(sequential.average(tempered), LARGEST_LOG_E)))


def _portable(value: float) -> float:
    """To so many digits that another machine's arithmetic gives the same number."""
    return float(f"{value:.9g}")
