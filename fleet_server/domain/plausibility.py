"""Whether evidence can be believed at all, before anything is proved by it."""

import math

import numpy as np

from fleet_server.domain.columns import Columns
from fleet_server.domain.evidence import Evidence
from fleet_server.domain.weighing import ENOUGH_DEVICES

UNLIKELY = 0.001
"""Chance below which the arms' numbers of reporting devices count as out of balance."""


def constant(evidence: Evidence, cells: Columns) -> bool:
    """Whether no labelled row was right, or none wrong: labels that never vary are broken.

    One device among many that says otherwise may be the broken one.
    """
    right = cells["right"] + cells["both_right"] + cells["only_shadow_right"]
    wrong = cells["wrong"] + cells["both_wrong"] + cells["only_active_right"]
    saw = [np.count_nonzero(cells.by_device(outcome)) for outcome in (right, wrong)]
    many = np.count_nonzero(cells.by_device(right + wrong)) >= ENOUGH_DEVICES
    return bool(min(saw) < (2 if many and evidence.method >= 2 else 1))


def out_of_balance(cells: Columns) -> bool:
    """Whether one arm's devices send rows so much more often that chance does not explain it.

    Both arms were drawn from the same hat, so given how many devices report, how many of them
    are candidates is hypergeometric (Fisher's exact test, two-sided by doubling). It only
    holds a promotion, so looking often costs time and no wrong verdict.
    """
    reporting = cells.by_device(cells["rows"] * _serving(cells)) > 0
    ours, theirs = int(cells.candidates.sum()), int(cells.controls.sum())
    if not ours or not theirs:
        return False
    found = int((reporting & cells.candidates).sum())
    seen = found + int((reporting & cells.controls).sum())
    fewest = max(0, seen - theirs)
    chances = [
        _log_ways(ours, k) + _log_ways(theirs, seen - k) - _log_ways(ours + theirs, seen)
        for k in range(fewest, min(ours, seen) + 1)
    ]
    place = found - fewest
    tails = (chances[: place + 1], chances[place:])
    return 2 * min(sum(map(math.exp, tail)) for tail in tails) < UNLIKELY


def _serving(cells: Columns) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return cells.is_arm("candidate") | cells.is_arm("control")


def _log_ways(n: int, k: int) -> float:
    """Log of the number of ways to choose k of n."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
