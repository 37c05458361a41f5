"""Promote, hold or roll back: a pure function of plan, stage and evidence.

No data is never a pass. A verdict can be replayed from its stored inputs to the same numbers.
"""

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from fleet_server.domain import comparison
from fleet_server.domain.comparison import Figure
from fleet_server.domain.evidence import Evidence, Member
from fleet_server.domain.plan import Plan, Stage

Decision = Literal["promote", "hold", "rollback"]

NOISY = (
    "labels carry noise for privacy, so accuracy is not judged: errors, latency and silent devices "
    "are watched, and a person decides"
)
MIN_SILENT = 2
"""One device that falls silent is a dead battery."""
UNLIKELY = 0.001
"""Chance below which the arms' numbers of reporting devices count as out of balance."""


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
    figures = comparison.figures(stage, plan, evidence)
    worst = max(figures, key=lambda figure: figure.e_worse / figure.worse_at)
    if worst.e_worse >= worst.worse_at:
        reason = _worse(worst) + _hurt_most(worst, figures)
        return Verdict(decision="rollback", reason=reason, evidence=figures)
    if evidence.noisy:
        return Verdict(decision="hold", reason=NOISY, evidence=figures)
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


def _judge_first(stage: Stage, plan: Plan, evidence: Evidence) -> Verdict:
    """Nothing to compare with: the release has to arrive, answer, and not fail."""
    ours = [cell for cell in evidence.cells if cell.arm == "candidate"]
    serving = {cell.device for cell in ours if cell.rows}
    rows, errors = sum(cell.rows for cell in ours), sum(cell.errors for cell in ours)
    if rows + errors >= plan.min_slice_rows and errors > plan.error_margin * (rows + errors):
        return Verdict(decision="rollback", reason=f"{errors} of {rows + errors} rows failed")
    devices = len(serving)
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


def _waiting(stage: Stage, plan: Plan, evidence: Evidence, figures: Sequence[Figure]) -> str | None:
    """What is still missing for a promotion; none when nothing is."""
    overall = figures[0]
    needed = 1 / plan.alpha
    missing = (
        (evidence.drifting, "the world is drifting: nothing is promoted on unusual data"),
        (_not_there(plan, evidence.members), _confirmed(evidence.members)),
        (_too_early(stage, evidence), "the stage's minimum time runs"),
        (
            overall.devices < stage.min_devices,
            f"{overall.devices} devices with labelled rows, {stage.min_devices} needed",
        ),
        (_out_of_balance(evidence), "fewer devices of one arm than of the other send rows"),
        (_constant(evidence), "every labelled row has the same outcome, which proves nothing"),
        *((True, text) for text in _slices_missing(plan, figures)),
        (
            not overall.e_not_worse >= needed,
            f"evidence {overall.e_not_worse:.3g} of {needed:.3g} that it is not worse",
        ),
    )
    return next((reason for holds, reason in missing if holds), None)


def _slices_missing(plan: Plan, figures: Sequence[Figure]) -> list[str]:
    """What declared slices still lack.

    A slice passes on evidence that it is not worse by more than its wider margin, or, where it
    is too rare for that, with enough rows that do not point to worse.
    """
    open_ = [
        figure
        for figure in figures
        if figure.metric == "accuracy" and figure.slice and figure.e_not_worse < 1 / plan.alpha
    ]
    thin = [f.slice or "" for f in open_ if f.rows < plan.min_slice_rows or f.estimate is None]
    low = [
        f.slice or ""
        for f in open_
        if f.estimate is not None and (f.estimate < -f.allowed or f.e_worse > 1)
    ]
    texts = []
    if thin:
        texts.append(f"no evidence yet for {', '.join(thin)}")
    if low:
        texts.append(f"looks worse on {', '.join(low)}")
    return texts


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


def _constant(evidence: Evidence) -> bool:
    """Whether no labelled row was right, or none wrong: labels that never vary are broken."""
    right = sum(c.right + c.both_right + c.only_shadow_right for c in evidence.cells)
    wrong = sum(c.wrong + c.both_wrong + c.only_active_right for c in evidence.cells)
    return not right or not wrong


def _out_of_balance(evidence: Evidence) -> bool:
    """Whether one arm's devices send rows so much more often that chance does not explain it.

    Both arms were drawn from the same hat, so given how many devices report, how many of them
    are candidates is hypergeometric (Fisher's exact test, two-sided by doubling). It only
    holds a promotion, so looking often costs time and no wrong verdict.
    """
    reporting = {c.device for c in evidence.cells if c.arm in ("candidate", "control") and c.rows}
    ours = [member.device in reporting for member in evidence.members if member.role == "candidate"]
    theirs = [member.device in reporting for member in evidence.members if member.role == "control"]
    if not ours or not theirs:
        return False
    seen, found = sum(ours) + sum(theirs), sum(ours)
    fewest = max(0, seen - len(theirs))
    chances = [
        _log_ways(len(ours), k)
        + _log_ways(len(theirs), seen - k)
        - _log_ways(len(ours + theirs), seen)
        for k in range(fewest, min(len(ours), seen) + 1)
    ]
    place = found - fewest
    tails = (chances[: place + 1], chances[place:])
    return 2 * min(sum(map(math.exp, tail)) for tail in tails) < UNLIKELY


def _log_ways(n: int, k: int) -> float:
    """Log of the number of ways to choose k of n."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _worse(figure: Figure) -> str:
    where = f" on {figure.slice}" if figure.slice else ""
    return (
        f"{figure.metric} is worse by more than {figure.margin:.1%}{where}: difference "
        f"{figure.estimate or 0:+.1%} on {figure.rows} rows of {figure.devices} devices "
        f"(e-value {figure.e_worse:.3g}, needed {figure.worse_at:.3g})"
    )


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
