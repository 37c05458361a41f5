"""How the candidate compares with the incumbent: figures from counts. Decides nothing.

Two sources of evidence on accuracy are averaged, which gives an e-value again:

- paired: rows that both releases answered, candidate right minus incumbent right;
- difference-in-differences: candidate devices against a concurrent random control, each row
  minus the device's own rate before the stage.

Rows are not independent. Evidence is tempered for rows that overlap, and a device's rows weigh
less the more there are of them (:mod:`fleet_server.domain.weighing`).
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from edge_core.stats import sequential
from fleet_server.domain import guardrails, weighing
from fleet_server.domain.columns import Columns
from fleet_server.domain.evidence import Evidence
from fleet_server.domain.limits import Limits, limits_of
from fleet_server.domain.plan import Plan, Stage
from fleet_server.domain.weighing import Weighted

Float64 = npt.NDArray[np.float64]

LARGEST_LOG_E = 700.0
PRIOR_OBSERVATIONS = 20.0
"""Weight of the fleet's rate in a device's own; devices differ by about .1 in their rates."""
MOST_BASELINE = 30.0
"""Observations that a baseline is worth at most: it is of another time, with other activities."""
LEVELS = 32
"""Baseline rates are rounded to this grid, so that a large fleet is no more work."""
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


def figures(stage: Stage, plan: Plan, evidence: Evidence, cells: Columns) -> list[Figure]:
    """Accuracy overall and per slice, then the guardrails.

    Noisy evidence has no figures of accuracy: bets on it would be bets on the noise.
    """
    watched = guardrails.watched(stage.kind, evidence.method)
    guards = 1 + len(evidence.slices) + len(watched)
    ours = cells.of_arm("shadow" if stage.kind == "shadow" else "candidate")
    second = evidence.method >= 2
    alone = second and _devices(ours.device[ours["rows"] > 0]) >= weighing.ENOUGH_DEVICES
    bench = _Bench(stage, plan, evidence, guards, standing_alone=alone, capped=second)
    names = [] if evidence.noisy else [None, *evidence.slices]
    found = [_accuracy(bench, cells, name) for name in names]
    for metric in watched:
        if metric != "scores" or not evidence.noisy:
            compared = guardrails.compared(
                metric, stage.kind, cells, drifting=evidence.drifting, capped=bench.capped
            )
            found.append(_guard(bench, metric, compared))
    return found


class _Bench(NamedTuple):
    """What every figure of one judgement has to know."""

    stage: Stage
    plan: Plan
    evidence: Evidence
    guards: int
    """Figures that may each roll back; each gets its part of alpha."""
    standing_alone: bool
    capped: bool


def _accuracy(bench: _Bench, every: Columns, slice_: str | None) -> Figure:
    plan = bench.plan
    limits = limits_of(plan, "slices" if slice_ else "accuracy")
    cells = every if slice_ is None else every.within(slice_)
    shadows = cells.of_arm("shadow")
    shadows = shadows.take(shadows.pairs > 0)
    serving = cells.of_arm("candidate")
    serving = serving.take(serving.labelled > 0)
    paired = _paired(bench, shadows)
    arms = candidate, control = (
        _residuals(bench, serving),
        _residuals(bench, cells.of_arm("control")),
    )
    worse, fine = [], []
    alone = bench.standing_alone
    if paired.total:
        # (difference + 1) / 2 lies in [0, 1].
        halved, lost = paired.halved(), paired.negated().halved()
        fine.append(weighing.above(halved, (1 - limits.allowed) / 2, standing_alone=alone))
        worse.append(weighing.above(lost, (1 + limits.margin) / 2, standing_alone=alone))
    # In a drift the rates before the stage say little; rows that both answered still do.
    if candidate.total and control.total and not bench.evidence.drifting:
        fine.append(_difference_above(candidate, control, -limits.allowed, alone))
        worse.append(
            _difference_above(candidate.negated(), control.negated(), limits.margin, alone)
        )
    rows = int(shadows.pairs.sum()) or int(serving.labelled.sum())
    return _figure(
        bench,
        ("accuracy", slice_, limits),
        worse,
        fine,
        _portable(paired.mean) if paired.mean is not None else _difference(*arms),
        (rows, _devices(np.concatenate([shadows.device, serving.device]))),
    )


def _paired(bench: _Bench, shadows: Columns) -> Weighted:
    """Candidate right minus incumbent right, over rows that both answered."""
    plan, device = bench.plan, np.arange(shadows.devices)
    ours, theirs = shadows["only_active_right"], shadows["only_shadow_right"]
    won, lost = (theirs, ours) if bench.stage.kind == "shadow" else (ours, theirs)
    rows = shadows.by_device(shadows.pairs)
    weight = weighing.weights(
        rows, plan.rows_per_observation, plan.device_correlation, capped=bench.capped
    )
    better, worse = shadows.by_device(won), shadows.by_device(lost)
    outcomes = [worse, rows - worse - better, better]
    return Weighted(
        values=np.array([-1.0, 0.0, 1.0]),
        device=np.tile(device, 3),
        place=np.repeat([0, 1, 2], len(device)),
        weight=np.concatenate([weight * part for part in outcomes]),
    )


def _residuals(bench: _Bench, cells: Columns) -> Weighted:
    """Right minus the device's own rate before the stage, which removes device effects.

    A device's rate is shrunk towards the fleet's; both were fixed before the stage began. The
    less is known of a device, the more its rows may share an error, and the less they weigh.
    """
    overlap = bench.plan.rows_per_observation
    right_before, wrong_before = cells.known
    known = right_before + wrong_before
    observations = np.minimum(cells.by_device(known) / overlap, MOST_BASELINE)
    weight = weighing.weights(
        cells.by_device(cells.labelled),
        overlap,
        1 / (PRIOR_OBSERVATIONS + observations),
        capped=bench.capped,
    )[cells.device]
    prior = PRIOR_OBSERVATIONS * overlap
    rates = (right_before + prior * cells.before_rate) / (known + prior)
    level = np.rint(LEVELS * rates).astype(np.int64)
    return Weighted(
        values=RESIDUALS,
        device=np.tile(cells.device, 2),
        place=np.concatenate([2 * LEVELS - level, LEVELS - level]),
        weight=np.concatenate([weight * cells["right"], weight * cells["wrong"]]),
    )


def _guard(bench: _Bench, metric: str, compared: guardrails.Compared) -> Figure:
    """Compare rates of bad rows."""
    plan, limits = bench.plan, limits_of(bench.plan, metric)
    alone = bench.standing_alone
    worse, fine, estimates = [], [], []
    for rates, paired in ((compared.same_devices, True), (compared.control, False)):
        if rates is None:
            continue
        correlation = plan.device_correlation if paired else 1 / PRIOR_OBSERVATIONS
        candidate, other = (
            weighing.by_device(
                part.good,
                part.bad,
                weighing.weights(
                    part.rows, plan.rows_per_observation, correlation, capped=bench.capped
                ),
            )
            for part in (compared.ours, rates)
        )
        if candidate.total and other.total:
            worse.append(_difference_above(candidate, other, limits.margin, alone))
            # No promotion rests on this, so it need not stand without the loudest device.
            fine.append(
                _difference_above(candidate.negated(), other.negated(), -limits.allowed, False)
            )
            estimates.append(_difference(candidate, other))
    return _figure(
        bench,
        (metric, None, limits),
        worse,
        fine,
        estimates[0] if estimates else None,
        (int(compared.ours.rows.sum()), int(np.count_nonzero(compared.ours.rows))),
    )


def _figure(
    bench: _Bench,
    named: tuple[str, str | None, Limits],
    worse: Sequence[float],
    fine: Sequence[float],
    estimate: float | None,
    size: tuple[int, int],
) -> Figure:
    metric, slice_, limits = named
    return Figure(
        metric=metric,
        slice=slice_,
        estimate=estimate,
        margin=limits.margin,
        allowed=limits.allowed,
        e_worse=_e(bench.plan, worse),
        e_not_worse=_e(bench.plan, fine),
        worse_at=bench.guards / limits.alpha,
        rows=size[0],
        devices=size[1],
    )


def _devices(places: npt.NDArray[np.int64]) -> int:
    return len(np.unique(places))


def _difference_above(first: Weighted, second: Weighted, margin: float, alone: bool) -> float:
    return weighing.difference_above(first, second, margin, standing_alone=alone)


def _difference(mine: Weighted, other: Weighted) -> float | None:
    if mine.mean is None or other.mean is None:
        return None
    return _portable(mine.mean - other.mean)


def _e(plan: Plan, log_es: Iterable[float]) -> float:
    """Temper and average."""
    tempered = [sequential.tempered(log_e, plan.rows_per_observation) for log_e in log_es]
    return _portable(math.exp(min(sequential.average(tempered), LARGEST_LOG_E)))


def _portable(value: float) -> float:
    """To so many digits that another machine's arithmetic gives the same number."""
    return float(f"{value:.9g}")
