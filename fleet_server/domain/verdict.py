"""Promote, hold or roll back: a pure function of plan, stage and evidence.

No data is never a pass. A verdict can be replayed from its stored inputs to the same numbers.
"""

import math
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from fleet_server.domain import comparison, weighing
from fleet_server.domain.columns import Columns
from fleet_server.domain.comparison import Figure
from fleet_server.domain.evidence import Evidence, Member
from fleet_server.domain.limits import limits_of
from fleet_server.domain.plan import Plan, Stage
from fleet_server.domain.plausibility import constant, out_of_balance

Float64 = npt.NDArray[np.float64]

Decision = Literal["promote", "hold", "rollback"]

NOISY = (
    "labels carry noise for privacy, so accuracy is not judged: errors, latency and silent devices "
    "are watched, and a person decides"
)
CONSTANT = "every labelled row has the same outcome, which proves nothing"
MIN_SILENT = 2
"""One device that falls silent is a dead battery."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A decision, why, and the figures behind it."""

    decision: Decision
    reason: str
    evidence: list[Figure] = []


def judge(stage: Stage, plan: Plan, evidence: Evidence) -> Verdict:
    """Judge one stage of a rollout."""
    return judge_cells(stage, plan, evidence, Columns.of(evidence))


def judge_cells(stage: Stage, plan: Plan, evidence: Evidence, cells: Columns) -> Verdict:
    """Judge a stage whose cells are arranged; those in ``evidence`` are not looked at."""
    lost = _lost(plan, evidence.members)
    if lost is not None:
        return Verdict(decision="rollback", reason=lost)
    if not evidence.has_incumbent:
        return _judge_first(stage, plan, evidence, cells)
    figures = comparison.figures(stage, plan, evidence, cells)
    broken = evidence.method >= 2 and constant(evidence, cells)
    worst = max(
        _blaming(plan, figures, broken), key=lambda figure: figure.e_worse / figure.worse_at
    )
    if worst.e_worse >= worst.worse_at:
        reason = _worse(worst) + _hurt_most(worst, figures)
        return Verdict(decision="rollback", reason=reason, evidence=figures)
    if evidence.noisy:
        return Verdict(decision="hold", reason=NOISY, evidence=figures)
    waiting = _waiting(stage, plan, evidence, cells, figures)
    if waiting is not None:
        return Verdict(decision="hold", reason=waiting, evidence=figures)
    overall = figures[0]
    return Verdict(
        decision="promote",
        reason=f"not worse by more than {_percent(overall.allowed)} on {overall.rows} "
        f"labelled rows of {overall.devices} devices (e-value {overall.e_not_worse:.3g}, "
        f"difference {overall.estimate or 0:+.1%})",
        evidence=figures,
    )


def _blaming(plan: Plan, figures: Sequence[Figure], broken: bool) -> Sequence[Figure]:
    """Figures that may roll back.

    Scores speak for labels only until there are labels; broken labels blame nobody.
    """
    silent = {"accuracy"} if broken else set()
    if _shown(plan, figures[0]):
        silent.add("scores")
    return [figure for figure in figures if figure.metric not in silent]


def _shown(plan: Plan, figure: Figure) -> bool:
    """Whether it is shown that the candidate is not worse."""
    return figure.e_not_worse >= _needed(plan, figure)


def _needed(plan: Plan, figure: Figure) -> float:
    return 1 / limits_of(plan, "slices" if figure.slice else figure.metric).alpha


def _lost(plan: Plan, members: Sequence[Member]) -> str | None:
    """A device that refuses, fails or falls silent counts against the candidate."""
    chosen = _chosen(members)
    refused = [member for member in chosen if member.refused]
    if chosen and len(refused) / len(chosen) > plan.max_lost_share:
        return f"{len(refused)} of {len(chosen)} devices refused the release or recovered from it"
    others = [m for m in members if m.role == "control"] or [m for m in members if m.role == "none"]
    silent = [
        member
        for member in chosen
        # With nobody to compare with, one that never got its order may have been off before.
        if member.silent and not member.refused and (others or member.confirmed)
    ]
    usual = sum(member.silent for member in others) / len(others) if others else 0.0
    excess = len(silent) / len(chosen) - usual if chosen else 0.0
    if len(silent) >= MIN_SILENT and excess > plan.max_lost_share:
        return f"{len(silent)} of {len(chosen)} devices fell silent, {usual:.0%} of the others did"
    return None


def _judge_first(stage: Stage, plan: Plan, evidence: Evidence, cells: Columns) -> Verdict:
    """Nothing to compare with: the release has to arrive, answer, and not fail."""
    ours = cells.of_arm("candidate")
    by_device = ours.by_device(ours["rows"]), ours.by_device(ours["errors"])
    rows, errors = (int(part.sum()) for part in by_device)
    devices = int(np.count_nonzero(by_device[0]))
    if rows + errors >= plan.min_slice_rows and _failing(plan, evidence, *by_device):
        return Verdict(decision="rollback", reason=f"{errors} of {rows + errors} rows failed")
    missing = (
        (_not_there(plan, evidence.members), _confirmed(evidence.members)),
        (devices < stage.min_devices, f"{devices} devices served rows, {stage.min_devices} needed"),
        (rows < plan.min_slice_rows, f"{rows} rows served, {plan.min_slice_rows} needed"),
        (_too_early(stage, evidence), "the stage's minimum time runs"),
    )
    for holds, reason in missing:
        if holds:
            return Verdict(decision="hold", reason=reason)
    return Verdict(
        decision="promote",
        reason=f"first release: {_confirmed(evidence.members)} and served {rows} rows, "
        f"{errors} failed; there is no incumbent to compare with",
    )


def _failing(plan: Plan, evidence: Evidence, answered: Float64, failed: Float64) -> bool:
    """Whether too many rows fail, of all devices and without the one that fails most."""
    rows, margin = answered + failed, limits_of(plan, "errors").margin
    if evidence.method < 2:
        return bool(failed.sum() > margin * rows.sum())
    share = weighing.counting(rows) / np.maximum(rows, 1.0)
    excess = share * (failed - margin * rows)
    alone = np.count_nonzero(rows) >= weighing.ENOUGH_DEVICES
    return bool(excess.sum() - (max(0.0, excess.max()) if alone else 0.0) > 0)


def _waiting(
    stage: Stage, plan: Plan, evidence: Evidence, cells: Columns, figures: Sequence[Figure]
) -> str | None:
    """What is still missing for a promotion; none when nothing is."""
    overall = figures[0]
    needed = _needed(plan, overall)
    missing = (
        (evidence.drifting, "the world is drifting: nothing is promoted on unusual data"),
        (_not_there(plan, evidence.members), _confirmed(evidence.members)),
        (_too_early(stage, evidence), "the stage's minimum time runs"),
        (
            overall.devices < stage.min_devices,
            f"{overall.devices} devices with labelled rows, {stage.min_devices} needed",
        ),
        (out_of_balance(cells), "fewer devices of one arm than of the other send rows"),
        (
            constant(evidence, cells),
            CONSTANT,
        ),
        *((True, text) for text in _slices_missing(plan, figures, evidence.method)),
        (
            not overall.e_not_worse >= needed,
            f"evidence {overall.e_not_worse:.3g} of {needed:.3g} that it is not worse",
        ),
    )
    return next((reason for holds, reason in missing if holds), None)


def _slices_missing(plan: Plan, figures: Sequence[Figure], method: int) -> list[str]:
    """What declared slices still lack.

    A slice passes on evidence that it is not worse by more than its wider margin, or, where it
    is too rare for that, with enough rows that do not point to worse.
    """
    open_ = [
        figure
        for figure in figures
        if figure.metric == "accuracy" and figure.slice and not _shown(plan, figure)
    ]
    thin = [f.slice or "" for f in open_ if f.rows < plan.min_slice_rows or f.estimate is None]
    low = [
        f.slice or ""
        for f in open_
        if f.estimate is not None and (f.estimate < -_bearable(f, method) or f.e_worse > 1)
    ]
    texts = []
    if thin:
        texts.append(f"no evidence yet for {', '.join(thin)}")
    if low:
        texts.append(f"looks worse on {', '.join(low)}")
    return texts


def _bearable(figure: Figure, method: int) -> float:
    """One device can blame no release, so it need not look as bad to make a person look."""
    return figure.margin if figure.devices == 1 and method >= 2 else figure.allowed


def _chosen(members: Sequence[Member]) -> list[Member]:
    return [member for member in members if member.role in ("candidate", "shadow")]


def _not_there(plan: Plan, members: Sequence[Member]) -> bool:
    """Whether too many devices have not confirmed, for whatever reason."""
    chosen = _chosen(members)
    allowed = math.floor(plan.max_lost_share * len(chosen) + 1e-9)
    return not chosen or sum(map(_there, chosen)) < len(chosen) - allowed


def _confirmed(members: Sequence[Member]) -> str:
    chosen = _chosen(members)
    return f"{sum(map(_there, chosen))} of {len(chosen)} devices confirmed"


def _there(member: Member) -> bool:
    return member.confirmed and not member.silent


def _too_early(stage: Stage, evidence: Evidence) -> bool:
    # Written so that a NaN counts as too early.
    return not evidence.elapsed_seconds >= stage.min_seconds


def _worse(figure: Figure) -> str:
    where = f" on {figure.slice}" if figure.slice else ""
    return (
        f"{figure.metric} is worse by more than {_percent(figure.margin)}{where}: difference "
        f"{figure.estimate or 0:+.1%} on {figure.rows} rows of {figure.devices} devices "
        f"(e-value {figure.e_worse:.3g}, needed {figure.worse_at:.3g})"
    )


def _percent(share: float) -> str:
    return f"{share:.1%}" if math.isclose(share, round(share, 3)) else f"{share:.2%}"


def _hurt_most(whole: Figure, figures: Sequence[Figure]) -> str:
    """The slice that a figure of the whole hides: the one that lies furthest below it."""
    if whole.slice or whole.estimate is None:
        return ""
    found = [
        (figure.estimate, figure.slice)
        for figure in figures
        if figure.metric == whole.metric and figure.slice and figure.estimate is not None
    ]
    lowest, name = min(found, default=(whole.estimate, None))
    return f"; hurt most is {name}: {lowest:+.1%}" if lowest < whole.estimate else ""
