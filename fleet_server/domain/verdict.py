"""Promote, hold or roll back: a pure function of plan, stage and evidence.

No data is never a pass. A verdict can be replayed from its stored inputs to the same numbers.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
import numpy as np

from edge_core.stats import sequential
from edge_core.stats.sequential import Counted
from fleet_server.domain.evidence import Cell, Evidence, Member
from fleet_server.domain.plan import Plan, Stage

Decision = Literal["promote", "hold", "rollback"]

LARGEST_LOG_E = 700.0
PRIOR_ROWS = 20.0
"""Weight of the fleet's rate in a device's own baseline rate."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison; ``estimate`` is candidate minus comparison.

    ``e_worse`` is evidence that the candidate is worse by more than the margin,
    ``e_not_worse`` that it is not.
    """

    metric: str
    slice: str | None
    estimate: float | None
    margin: float
    e_worse: float
    e_not_worse: float
    worse_at: float
    """Roll back when ``e_worse`` reaches this."""
    rows: int
    devices: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A decision, why, and the figures behind it."""

    decision: Decision
    reason: str
    evidence: list[Figure] = []


def judge(stage: Stage, plan: Plan, evidence: Evidence) -> Verdict:
    """Judge one stage of a rollout."""
    lost = _lost(plan, evidence.members)
    if lost is not None:
        return Verdict(decision="rollback", reason=lost)
    if not evidence.has_incumbent:
        return _judge_first(stage, plan, evidence)
    figures = _figures(stage, plan, evidence)
    worst = max(figures, key=lambda figure: figure.e_worse / figure.worse_at)
    if worst.e_worse >= worst.worse_at:
        return Verdict(decision="rollback", reason=_worse(worst), evidence=figures)
    waiting = _waiting(stage, plan, evidence, figures)
    if waiting is not None:
        return Verdict(decision="hold", reason=waiting, evidence=figures)
    overall = figures[0]
    return Verdict(
        decision="promote",
        reason=f"not worse by more than {plan.delta:.1%} on {overall.rows} labelled rows of "
        f"{overall.devices} devices (e-value {overall.e_not_worse:.3g}, "
        f"difference {overall.estimate or 0:+.1%})",
        evidence=figures,
    )


def _lost(plan: Plan, members: Sequence[Member]) -> str | None:
    """A device that refuses, fails or falls silent counts against the candidate."""
    chosen = [member for member in members if member.role in ("candidate", "shadow")]
    refused = [member for member in chosen if member.refused]
    silent = [member for member in chosen if member.silent and not member.refused]
    controls = [member for member in members if member.role == "control"]
    control_share = sum(member.silent for member in controls) / len(controls) if controls else 0.0
    if chosen and len(refused) / len(chosen) > plan.max_lost_share:
        return f"{len(refused)} of {len(chosen)} devices refused the release or recovered from it"
    if chosen and len(silent) / len(chosen) - control_share > plan.max_lost_share:
        return f"{len(silent)} of {len(chosen)} devices fell silent; of the control fewer did"
    return None


def _judge_first(stage: Stage, plan: Plan, evidence: Evidence) -> Verdict:
    """Nothing to compare with: the release has to arrive, answer, and not fail."""
    chosen = [member for member in evidence.members if member.role in ("candidate", "shadow")]
    expected = [member for member in chosen if not member.silent and not member.refused]
    serving = {cell.device for cell in evidence.cells if cell.rows and cell.arm == "candidate"}
    rows = sum(cell.rows for cell in evidence.cells if cell.arm == "candidate")
    errors = sum(cell.errors for cell in evidence.cells if cell.arm == "candidate")
    if rows + errors >= plan.min_slice_rows and errors > plan.error_margin * (rows + errors):
        return Verdict(decision="rollback", reason=f"{errors} of {rows + errors} rows failed")
    confirmed = [member for member in expected if member.confirmed]
    missing = (
        (len(confirmed) < len(expected), f"{len(confirmed)} of {len(expected)} devices confirmed"),
        (len(serving) < stage.min_devices, f"{len(serving)} devices served rows"),
        (rows < plan.min_slice_rows, f"{rows} rows served"),
        (evidence.elapsed_seconds < stage.min_seconds, "the stage's minimum time runs"),
    )
    for holds, reason in missing:
        if holds:
            return Verdict(decision="hold", reason=reason)
    return Verdict(
        decision="promote",
        reason=f"first release: {len(confirmed)} devices confirmed and served {rows} rows, "
        f"{errors} failed; there is no incumbent to compare with",
    )


def _figures(stage: Stage, plan: Plan, evidence: Evidence) -> list[Figure]:
    """Accuracy overall and per slice, then errors and latency."""
    guards = 1 + len(evidence.slices) + (2 if stage.kind != "shadow" else 1)
    worse_at = guards / plan.alpha
    figures = [_accuracy(stage, plan, evidence, None, worse_at)]
    figures += [_accuracy(stage, plan, evidence, name, worse_at) for name in evidence.slices]
    figures.append(_errors(stage, plan, evidence.cells, worse_at))
    if stage.kind != "shadow":
        figures.append(_latency(plan, evidence.cells, worse_at))
    return figures


def _accuracy(
    stage: Stage, plan: Plan, evidence: Evidence, slice_: str | None, worse_at: float
) -> Figure:
    """Paired rows, and in canary and ramp also the difference-in-differences, averaged."""
    cells = [cell for cell in evidence.cells if slice_ is None or slice_ in cell.slice.split(",")]
    shadows = [cell for cell in cells if cell.arm == "shadow"]
    paired = _paired(shadows, candidate_is_shadow=stage.kind == "shadow")
    worse, not_worse = [], []
    if paired.total:
        # (difference + 1) / 2 lies in [0, 1].
        better = Counted((paired.values + 1) / 2, paired.counts)
        lesser = Counted((1 - paired.values) / 2, paired.counts)
        not_worse.append(sequential.above(better, (1 - plan.delta) / 2))
        worse.append(sequential.above(lesser, (1 + plan.delta) / 2))
    candidate = _residuals(cells, evidence, "candidate")
    control = _residuals(cells, evidence, "control")
    if candidate.total and control.total:
        not_worse.append(sequential.difference_above(candidate, control, -plan.delta))
        worse.append(
            sequential.difference_above(_negated(candidate), _negated(control), plan.delta)
        )
    return Figure(
        metric="accuracy",
        slice=slice_,
        estimate=paired.mean if paired.total else _difference(candidate, control),
        margin=plan.delta,
        e_worse=_e(sequential.average([_tempered(plan, log_e) for log_e in worse])),
        e_not_worse=_e(sequential.average([_tempered(plan, log_e) for log_e in not_worse])),
        worse_at=worse_at,
        rows=int(paired.total or candidate.total),
        devices=len({cell.device for cell in shadows if _labelled_pairs(cell)}),
    )


def _labelled_pairs(cell: Cell) -> int:
    return cell.both_right + cell.only_active_right + cell.only_shadow_right + cell.both_wrong


def _paired(shadows: Sequence[Cell], *, candidate_is_shadow: bool) -> Counted:
    """Candidate right minus incumbent right, over rows that both answered."""
    shadow_only = sum(cell.only_shadow_right for cell in shadows)
    active_only = sum(cell.only_active_right for cell in shadows)
    same = sum(cell.both_right + cell.both_wrong for cell in shadows)
    better, worse = (
        (shadow_only, active_only) if candidate_is_shadow else (active_only, shadow_only)
    )
    return sequential.counted([(-1.0, worse), (0.0, same), (1.0, better)])


def _residuals(cells: Sequence[Cell], evidence: Evidence, arm: str) -> Counted:
    """Right minus the device's own rate before the stage, which removes device effects.

    A device's rate is shrunk towards the fleet's; both were fixed before the stage began.
    """
    right = sum(baseline.right for baseline in evidence.baselines)
    total = right + sum(baseline.wrong for baseline in evidence.baselines)
    fleet = right / total if total else 0.5
    before = {(entry.device, entry.slice): entry for entry in evidence.baselines}
    pairs: list[tuple[float, int]] = []
    for cell in cells:
        if cell.arm != arm:
            continue
        known = before.get((cell.device, cell.slice))
        own_right, own_wrong = (known.right, known.wrong) if known else (0, 0)
        rate = (own_right + PRIOR_ROWS * fleet) / (own_right + own_wrong + PRIOR_ROWS)
        pairs += [(1.0 - rate, cell.right), (-rate, cell.wrong)]
    return sequential.counted(pairs)


def _errors(stage: Stage, plan: Plan, cells: Sequence[Cell], worse_at: float) -> Figure:
    """Rows that the model could not answer, against the comparison's in the same time."""
    ours, theirs = ("shadow", "incumbent") if stage.kind == "shadow" else ("candidate", "control")
    return _rates(
        plan, cells, ours, theirs, worse_at,
        metric="errors",
        margin=plan.error_margin,
        split=lambda cell: (cell.errors, cell.rows),
    )  # fmt: skip


def _latency(plan: Plan, cells: Sequence[Cell], worse_at: float) -> Figure:
    """Rows slower than 19 of 20 of the control's."""
    control = [cell.latency for cell in cells if cell.arm == "control" and cell.latency]
    merged = np.sum(control, axis=0) if control else np.zeros(1)
    limit = int(np.searchsorted(np.cumsum(merged), 0.95 * merged.sum())) + 1
    return _rates(
        plan, cells, "candidate", "control", worse_at,
        metric="latency",
        margin=plan.latency_margin,
        split=lambda cell: (sum(cell.latency[limit:]), sum(cell.latency[:limit])),
    )  # fmt: skip


def _rates(
    plan: Plan,
    cells: Sequence[Cell],
    ours: str,
    theirs: str,
    worse_at: float,
    *,
    metric: str,
    margin: float,
    split: Callable[[Cell], tuple[int, int]],
) -> Figure:
    """Compare the rates of bad rows of two arms; ``split`` gives (bad, good) of a cell."""
    chosen = [cell for cell in cells if cell.arm == ours]
    counted = []
    for group in (chosen, [cell for cell in cells if cell.arm == theirs]):
        splits = [split(cell) for cell in group]
        bad, good = sum(s[0] for s in splits), sum(s[1] for s in splits)
        counted.append(sequential.counted([(1.0, bad), (0.0, good)]))
    mine, other = counted
    both = mine.total > 0 and other.total > 0
    worse = sequential.difference_above(mine, other, margin) if both else 0.0
    fine = sequential.difference_above(_negated(mine), _negated(other), -margin) if both else 0.0
    return Figure(
        metric=metric,
        slice=None,
        estimate=_difference(mine, other),
        margin=margin,
        e_worse=_e(_tempered(plan, worse)),
        e_not_worse=_e(_tempered(plan, fine)),
        worse_at=worse_at,
        rows=int(mine.total),
        devices=len({cell.device for cell in chosen if cell.rows}),
    )


def _waiting(stage: Stage, plan: Plan, evidence: Evidence, figures: Sequence[Figure]) -> str | None:
    """What is still missing for a promotion; none when nothing is."""
    overall = figures[0]
    chosen = [m for m in evidence.members if m.role in ("candidate", "shadow")]
    expected = [m for m in chosen if not m.silent and not m.refused]
    confirmed = sum(member.confirmed for member in expected)
    slices = [figure for figure in figures if figure.metric == "accuracy" and figure.slice]
    thin = [figure.slice for figure in slices if figure.rows < plan.min_slice_rows]
    low = [f.slice for f in slices if f.estimate is not None and f.estimate < -2 * plan.delta]
    missing = (
        (not evidence.slices and overall.rows == 0, "no labelled rows yet"),
        (confirmed < len(expected), f"{confirmed} of {len(expected)} devices confirmed"),
        (evidence.elapsed_seconds < stage.min_seconds, "the stage's minimum time runs"),
        (overall.devices < stage.min_devices, f"{overall.devices} devices with labelled rows"),
        (bool(thin), f"no evidence yet for {', '.join(map(str, thin))}"),
        (bool(low), f"looks worse on {', '.join(map(str, low))}"),
        (
            overall.e_not_worse < 1 / plan.alpha,
            f"evidence {overall.e_not_worse:.3g} of {1 / plan.alpha:.3g} that it is not worse",
        ),
        (evidence.drifting, "the world is drifting: nothing is promoted on unusual data"),
    )
    return next((reason for holds, reason in missing if holds), None)


def _worse(figure: Figure) -> str:
    where = f" on {figure.slice}" if figure.slice else ""
    return (
        f"{figure.metric} is worse by more than {figure.margin:.1%}{where}: difference "
        f"{figure.estimate or 0:+.1%} on {figure.rows} rows of {figure.devices} devices "
        f"(e-value {figure.e_worse:.3g}, needed {figure.worse_at:.3g})"
    )


def _tempered(plan: Plan, log_e: float) -> float:
    return sequential.tempered(log_e, plan.rows_per_observation)


def _negated(seen: Counted) -> Counted:
    return Counted(-seen.values, seen.counts)


def _difference(mine: Counted, other: Counted) -> float | None:
    if mine.mean is None or other.mean is None:
        return None
    return mine.mean - other.mean


def _e(log_e: float) -> float:
    return math.exp(min(log_e, LARGEST_LOG_E))
