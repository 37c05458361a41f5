"""Evidence from which nothing may follow: nothing, one arm, constants, and no numbers."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.verdict_fleets.fleet import Fleet, World
from fleet_server.domain.columns import COUNTS, Columns
from fleet_server.domain.plan import Plan, Stage
from fleet_server.domain.verdict import judge_cells

MINUTES = [120]
LABELS = [COUNTS.index(name) for name in ("right", "wrong")]
PAIRS = [COUNTS.index(name) for name in COUNTS if name.startswith(("both", "only"))]


def _empty(cells: Columns, rng: np.random.Generator) -> Columns:
    return cells.take(np.zeros(len(cells.at), bool))


def _no_labels(cells: Columns, rng: np.random.Generator) -> Columns:
    counts = cells.counts.copy()
    counts[[*LABELS, *PAIRS]] = 0
    return replace(cells, counts=counts)


def _one_arm(cells: Columns, rng: np.random.Generator) -> Columns:
    kept = rng.choice(np.unique(cells.arm))
    counts = cells.counts.copy()
    counts[PAIRS] = 0
    return replace(cells, counts=counts).take(cells.arm == kept)


def _constant(cells: Columns, rng: np.random.Generator) -> Columns:
    counts = cells.counts.copy()
    labelled, pairs = counts[LABELS].sum(axis=0), counts[PAIRS].sum(axis=0)
    counts[[*LABELS, *PAIRS]] = 0
    right = bool(rng.integers(2))
    counts[COUNTS.index("right" if right else "wrong")] = labelled
    counts[COUNTS.index("both_right" if right else "both_wrong")] = pairs
    return replace(cells, counts=counts)


def _no_numbers(cells: Columns, rng: np.random.Generator) -> Columns:
    """As a decoder would never pass it, but a mistake of ours might."""
    counts = np.full_like(cells.counts, rng.choice([np.nan, np.inf, -np.inf]))
    return replace(cells, counts=counts)


KINDS: dict[str, Callable[[Columns, np.random.Generator], Columns]] = {
    "no cell": _empty,
    "no label": _no_labels,
    "one arm": _one_arm,
    "one outcome": _constant,
    "NaN, inf": _no_numbers,
}


def verdicts(stage: Stage, plan: Plan, kind: str, seed: int) -> str:
    """What is decided on one fleet's damaged evidence."""
    rng = np.random.default_rng(seed)
    fleet = Fleet(World(devices=20 + int(rng.integers(180))), rng)
    (look,) = fleet.looks(stage, MINUTES)
    cells = KINDS[kind](look.cells, rng).sound()
    return judge_cells(stage, plan, look.evidence, cells).decision
