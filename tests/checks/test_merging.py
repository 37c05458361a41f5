"""Every summary class passes every check; a new class fails until it stands here."""

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from edge_core.stats.histogram import Channel, Histogram, Layout, Reference
from edge_core.stats.latency import LatencyHistogram
from fleet_server.storage.costs import CostCounts
from fleet_server.storage.drift import PeriodCounts
from fleet_server.storage.rollups import FIGURES, PACKED, RollupCounts
from fleet_server.storage.windows import CellCounts
from tests.checks import merging
from tests.checks.merging import CHECKS, Case

ROWS = 12
RNG = np.random.default_rng(17)
RAW = RNG.normal(0, 1, (ROWS, 5, 1)).astype(np.float32)
FEATURES = RNG.normal(0, 1, (ROWS, 1)).astype(np.float32)
PROBABILITIES = RNG.dirichlet([1, 1], ROWS).astype(np.float32)
MICROSECONDS = RNG.lognormal(6, 3, ROWS)
CELLS = RNG.integers(0, 50, (ROWS, len(CellCounts.__struct_fields__)))

COSTS = RNG.integers(0, 50, (ROWS, len(CostCounts.__struct_fields__)))

ROLLUPS = RNG.integers(0, 50, (ROWS, len(FIGURES)))

LAYOUT = Layout(
    Reference(
        rows=0,
        channels=[
            Channel(name="ax", kind="input", edges=[-1.0, 0.0, 1.0], counts=[0] * 5),
            Channel(name="ax_mean", kind="feature", edges=[-1.0, 1.0], counts=[0] * 4),
            Channel(name="confidence", kind="score", edges=[0.5, 0.8, 1.0], counts=[0] * 5),
            Channel(name="predicted", kind="score", edges=[-0.5, 0.5, 1.5], counts=[0] * 5),
        ],
    )
)


def histogram(rows: slice) -> Histogram:
    summary = Histogram(LAYOUT)
    summary.update(RAW[rows], FEATURES[rows], PROBABILITIES[rows])
    return summary


def latency(rows: slice) -> LatencyHistogram:
    summary = LatencyHistogram()
    summary.update(MICROSECONDS[rows])
    return summary


def cell(rows: slice) -> CellCounts:
    if not len(CELLS[rows]):
        return CellCounts()
    sums = dict(zip(CellCounts.__struct_fields__, CELLS[rows].sum(axis=0).tolist(), strict=True))
    bins = np.bincount(CELLS[rows, 0] % 4, minlength=4).tolist()
    return msgspec.convert(sums | {"latency": bins}, CellCounts)


def cost(rows: slice) -> CostCounts:
    if not len(COSTS[rows]):
        return CostCounts()
    sums = COSTS[rows].sum(axis=0).tolist()
    return CostCounts(**dict(zip(CostCounts.__struct_fields__, sums, strict=True)))


def rollup(rows: slice) -> RollupCounts:
    if not len(ROLLUPS[rows]):
        return RollupCounts()
    sums = dict(zip(FIGURES, ROLLUPS[rows].sum(axis=0).tolist(), strict=True))
    bins = np.bincount(ROLLUPS[rows, 0] % 4, minlength=4)
    return RollupCounts(**sums, **dict.fromkeys(PACKED, bins))


def read_rollup(found: RollupCounts) -> dict[str, object]:
    arrays = {name: getattr(found, name).tolist() for name in PACKED}
    return {name: getattr(found, name) for name in FIGURES} | arrays


def period(rows: slice) -> PeriodCounts:
    own = ROLLUPS[rows]
    rows_, right, wrong = own[:, :3].sum(axis=0).tolist()
    bins = np.bincount(own[:, 0] % 4, minlength=4)
    return PeriodCounts(rows=rows_, right=right, wrong=wrong, counts=bins)


def read_period(found: PeriodCounts) -> tuple[int, int, int, list[int]]:
    return found.rows, found.right, found.wrong, found.counts.tolist()


CASES = [
    Case(kind=Histogram, rows=ROWS, over=histogram, read=lambda found: found.counts.tolist()),
    Case(kind=LatencyHistogram, rows=ROWS, over=latency, read=lambda found: found.counts.tolist()),
    Case(kind=CostCounts, rows=ROWS, over=cost, read=msgspec.to_builtins),
    Case(kind=CellCounts, rows=ROWS, over=cell, read=msgspec.to_builtins),
    Case(kind=RollupCounts, rows=ROWS, over=rollup, read=read_rollup),
    Case(kind=PeriodCounts, rows=ROWS, over=period, read=read_period),
]


def test_every_summary_class_is_checked() -> None:
    assert {case.name for case in CASES} == merging.summary_classes()


def test_every_statistic_that_updates_merges() -> None:
    assert merging.mergeless_classes() == set()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind.__name__)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_merging(check: Callable[[Case], None], case: Case) -> None:
    check(case)


class Forgetful:
    """Drops a side that holds one row, as some libraries do."""

    def __init__(self, rows: int = 0) -> None:
        self.rows = rows

    def merge(self, other: "Forgetful") -> None:
        if other.rows > 1:
            self.rows += other.rows


class Sharing:
    """Takes the other's list itself when it holds nothing yet."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows

    def merge(self, other: "Sharing") -> None:
        if not self.rows:
            self.rows = other.rows
        else:
            self.rows += other.rows


class Ordered:
    """Keeps the last row that it saw."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows[-1:]

    def merge(self, other: "Ordered") -> None:
        self.rows = other.rows or self.rows


NUMBERS = list(range(ROWS))
BROKEN = [
    (
        Case(
            kind=Forgetful,
            rows=ROWS,
            over=lambda part: Forgetful(len(NUMBERS[part])),
            read=lambda found: found.rows,
        ),
        merging.check_shards_of_one_row_count,
    ),
    (
        Case(
            kind=Sharing,
            rows=ROWS,
            over=lambda part: Sharing(NUMBERS[part]),
            read=lambda found: sorted(found.rows),
        ),
        merging.check_merging_an_empty_summary_first_shares_nothing,
    ),
    (
        Case(
            kind=Ordered,
            rows=ROWS,
            over=lambda part: Ordered(NUMBERS[part]),
            read=lambda found: list(found.rows),
        ),
        merging.check_order_changes_nothing,
    ),
]


@pytest.mark.parametrize(("case", "check"), BROKEN, ids=["forgetful", "sharing", "ordered"])
def test_the_checks_find_a_broken_class(case: Case, check: Callable[[Case], None]) -> None:
    with pytest.raises(AssertionError):
        check(case)
