"""Slices that the average hides, and slices that only look worse by chance."""

import numpy as np
import pytest

from fleet_server.domain import fairness
from fleet_server.domain.fairness import Rules, SliceCounts, SliceFigure

RULES = Rules(
    margin=0.1, min_rows=50, alpha=0.01, rows_per_observation=5.0, device_correlation=0.05
)


def counts(name: str, right: list[int], wrong: list[int]) -> SliceCounts:
    """Counts by device."""
    weights = [fairness.weight(r + w, RULES) for r, w in zip(right, wrong, strict=True)]
    return SliceCounts(
        slice=name, right=sum(right), wrong=sum(wrong),
        weighed_right=float(np.dot(weights, right)), weighed_wrong=float(np.dot(weights, wrong)),
    )  # fmt: skip


def drawn(
    name: str, devices: int, rows: int, accuracy: float, rng: np.random.Generator, spread: float
) -> SliceCounts:
    """Devices that differ, and rows that come five times over."""
    rates = np.clip(accuracy + spread * rng.standard_normal(devices), 0, 1)
    right = (5 * rng.binomial(rows // 5, rates)).tolist()
    return counts(name, right, [rows - count for count in right])


def judged(*found: SliceCounts) -> dict[str, SliceFigure]:
    return {figure.slice: figure for figure in fairness.figures(found, RULES)}


def test_a_slice_that_the_average_hides_is_found() -> None:
    rng = np.random.default_rng(0)
    rest, small = (
        drawn("side=right", 90, 200, 0.9, rng, 0.05),
        drawn("side=left", 10, 200, 0.6, rng, 0.05),
    )
    found = judged(rest, small)
    everything = (rest.right + small.right) / (rest.rows + small.rows)
    assert everything > 0.85
    assert found["side=left"].hurt
    assert not found["side=right"].hurt
    low, high = found["side=left"].low, found["side=left"].high
    assert low is not None
    assert high is not None
    assert low < 0.6 < high


@pytest.mark.parametrize("difference", [0.0, 0.05])
def test_slices_within_the_margin_are_seldom_blamed(difference: float) -> None:
    rng = np.random.default_rng(1)
    alerts = 0
    for _ in range(300):
        found = judged(
            drawn("side=left", 10, 400, 0.8, rng, 0.1),
            drawn("side=right", 40, 400, 0.8 + difference, rng, 0.1),
        )
        alerts += any(figure.hurt for figure in found.values())
    assert alerts <= 6  # alpha is .01, at every look together


def test_few_rows_are_shown_and_not_judged() -> None:
    found = judged(counts("side=left", [0], [49]), counts("side=right", [100] * 100, [0] * 100))
    assert found["side=left"].accuracy == 0
    assert not found["side=left"].enough
    assert not found["side=left"].hurt


def test_rows_of_one_device_weigh_less_than_those_of_many() -> None:
    others = counts("side=right", [90] * 100, [10] * 100)
    alone, many = counts("side=left", [700], [300]), counts("side=left", [7] * 100, [3] * 100)
    by_one, by_many = judged(alone, others)["side=left"], judged(many, others)["side=left"]
    assert by_one.e_worse < by_many.e_worse
    assert (by_one.high or 0) - (by_one.low or 0) > (by_many.high or 0) - (by_many.low or 0)


def test_a_name_with_one_value_and_no_rows_proves_nothing() -> None:
    found = judged(counts("side=left", [], []))
    assert found["side=left"].accuracy is None
    assert found["side=left"].e_worse == 1
    assert not found["side=left"].hurt


def test_more_slices_need_more_evidence() -> None:
    values = [counts(f"site={i}", [80], [20]) for i in range(20)]
    assert {figure.worse_at for figure in fairness.figures(values, RULES)} == {2000}


def test_figures_of_classes() -> None:
    confusion = {("a", "a"): 8, ("a", "b"): 2, ("b", "b"): 9, ("b", "a"): 1}
    a, b, c = fairness.by_class(confusion, ["a", "b", "c"])
    assert (a.recall, a.false_alarms, a.claimed) == (0.8, 0.1, 0.45)
    assert (b.recall, b.false_alarms, b.claimed) == (0.9, 0.2, 0.55)
    assert (c.rows, c.recall, c.false_alarms, c.claimed) == (0, None, 0.0, 0.0)
    assert fairness.by_class({}, ["a"])[0].claimed is None
