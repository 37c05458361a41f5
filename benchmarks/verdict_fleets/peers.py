"""The usual tests on the same counts: what one would write first.

In a shadow stage every row has a pair, so they are tests of the mean difference; in a canary they
are two-proportion tests of candidate against control. Rows are discounted for overlap as ours are
(``rows_per_observation``), except in the plainest of them.
"""

import math
from functools import lru_cache
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np

from benchmarks.verdict_fleets.fleet import Look
from fleet_server.domain.columns import Columns
from fleet_server.domain.plan import Plan, Stage

Outcome = Literal["promote", "hold", "rollback"]
POWER = 0.9
GROUP_LOOKS = 8


class Seen(NamedTuple):
    """Difference of accuracy, candidate minus incumbent, and its standard error."""

    difference: float
    error: float


def seen(stage: Stage, cells: Columns, overlap: float) -> Seen | None:
    """What the plain estimate says; none without both arms."""
    if stage.kind == "shadow":
        won, lost = cells["only_shadow_right"].sum(), cells["only_active_right"].sum()
        rows = cells.pairs.sum()
        if not rows:
            return None
        mean = (won - lost) / rows
        variance = (won + lost) / rows - mean**2
        return Seen(float(mean), math.sqrt(max(variance, 1e-9) * overlap / rows))
    arms = [cells.of_arm(arm) for arm in ("candidate", "control")]
    rows_of = [arm.labelled.sum() for arm in arms]
    if not all(rows_of):
        return None
    rates = [arm["right"].sum() / rows for arm, rows in zip(arms, rows_of, strict=True)]
    variance = sum(r * (1 - r) / n for r, n in zip(rates, rows_of, strict=True))
    return Seen(float(rates[0] - rates[1]), math.sqrt(max(variance, 1e-9) * overlap))


def judged(found: Seen | None, plan: Plan, critical: float) -> Outcome:
    """Worse where zero is excluded, well where the allowed loss is; both one-sided."""
    if found is None:
        return "hold"
    if found.difference / found.error < -critical:
        return "rollback"
    allowed = plan.metrics.accuracy.allowed or plan.delta
    if (found.difference + allowed) / found.error > critical:
        return "promote"
    return "hold"


class Every:
    """A z-test at every look."""

    def __init__(self, stage: Stage, plan: Plan, *, overlap: float) -> None:
        self._stage, self._plan, self._overlap = stage, plan, overlap
        self._critical = NormalDist().inv_cdf(1 - plan.alpha)

    def at(self, look: Look) -> Outcome:
        return judged(seen(self._stage, look.cells, self._overlap), self._plan, self._critical)


class Fixed:
    """One z-test, when there are rows enough to see the allowed loss with 90 % power."""

    def __init__(self, stage: Stage, plan: Plan, minute: int) -> None:
        self._every = Every(stage, plan, overlap=plan.rows_per_observation)
        self.minute = minute

    def at(self, look: Look) -> Outcome:
        return self._every.at(look) if look.minute == self.minute else "hold"


class Group:
    """O'Brien and Fleming (1979): a few looks that share alpha."""

    def __init__(self, stage: Stage, plan: Plan, minutes: list[int]) -> None:
        self._stage, self._plan = stage, plan
        self._minutes = minutes
        self._constant = _obrien_fleming(len(minutes), plan.alpha)

    def at(self, look: Look) -> Outcome:
        if look.minute not in self._minutes:
            return "hold"
        part = (self._minutes.index(look.minute) + 1) / len(self._minutes)
        found = seen(self._stage, look.cells, self._plan.rows_per_observation)
        return judged(found, self._plan, self._constant / math.sqrt(part))


def horizon(stage: Stage, plan: Plan, rows_per_minute: float, wait: int) -> int:
    """Minutes until rows suffice for one look: of the whole fleet, or of one arm of a canary."""
    allowed = plan.metrics.accuracy.allowed or plan.delta
    variance = 0.2 if stage.kind == "shadow" else 2 * 0.16
    sds = NormalDist().inv_cdf(1 - plan.alpha) + NormalDist().inv_cdf(POWER)
    observations = sds**2 * variance / allowed**2
    return wait + math.ceil(observations * plan.rows_per_observation / rows_per_minute)


@lru_cache
def _obrien_fleming(looks: int, alpha: float) -> float:
    """Critical value at the last of equally spaced looks, one-sided, by simulation."""
    rng = np.random.default_rng(0)
    walks = rng.normal(size=(200_000, looks)).cumsum(axis=1) / math.sqrt(looks)
    return float(np.quantile(walks.max(axis=1), 1 - alpha))
