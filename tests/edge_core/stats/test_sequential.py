"""E-values from counts: valid under the null at every look, strong when it is wrong."""

import numpy as np
import pytest

from edge_core.stats import sequential
from edge_core.stats.sequential import Counted, counted

LOOKS = np.unique(np.geomspace(1, 2000, 40).astype(int))
ALPHA = 0.05


def coin(heads: int, total: int) -> Counted:
    return counted([(0.0, total - heads), (1.0, heads)])


def residuals(right: int, total: int, rate: float) -> Counted:
    return counted([(1.0 - rate, right), (-rate, total - right)])


def crossings(log_es: list[list[float]]) -> float:
    """Share of runs whose evidence reached 1 / ALPHA at any look."""
    return float(np.mean([max(run) >= -np.log(ALPHA) for run in log_es]))


@pytest.mark.parametrize("null", [0.05, 0.5, 0.9])
def test_evidence_on_a_mean_rarely_misleads_however_often_one_looks(null: float) -> None:
    rng = np.random.default_rng(1)
    runs = [
        [sequential.above(coin(int(heads[n - 1]), int(n)), null) for n in LOOKS]
        for heads in (rng.random((400, LOOKS[-1])) < null).cumsum(axis=1)
    ]
    assert crossings(runs) <= ALPHA


@pytest.mark.parametrize(("first", "second"), [(1, 1), (1, 10), (10, 1)])
@pytest.mark.parametrize("rate", [0.2, 0.8])
def test_evidence_on_a_difference_rarely_misleads(first: int, second: int, rate: float) -> None:
    """On the edge of the null, with arms of equal and of very different size."""
    rng = np.random.default_rng(2)
    runs = []
    for _ in range(200):
        ours = (rng.random(first * 500) < rate).cumsum()
        theirs = (rng.random(second * 500) < rate - 0.05).cumsum()
        runs.append(
            [
                sequential.difference_above(
                    residuals(int(ours[first * n - 1]), first * int(n), 0.5),
                    residuals(int(theirs[second * n - 1]), second * int(n), 0.5),
                    0.05,
                )
                for n in LOOKS[LOOKS <= 500]
            ]
        )
    assert crossings(runs) <= ALPHA


def test_evidence_has_a_mean_of_at_most_one_under_the_null() -> None:
    """Exactly, over every outcome of a few rows."""
    for null in (0.1, 0.5, 0.93):
        rows = 6
        chances = [
            np.prod([(rows - i) / (i + 1) for i in range(k)]) * null**k * (1 - null) ** (rows - k)
            for k in range(rows + 1)
        ]
        es = [np.exp(sequential.above(coin(k, rows), null)) for k in range(rows + 1)]
        assert np.dot(chances, es) == pytest.approx(1.0)


def test_a_difference_has_a_mean_of_at_most_one_under_the_null() -> None:
    rows, margin = 4, 0.1
    for rate in (0.15, 0.5, 0.95):
        ours = [comb(rows, k) * rate**k * (1 - rate) ** (rows - k) for k in range(rows + 1)]
        low = rate - margin
        theirs = [comb(rows, k) * low**k * (1 - low) ** (rows - k) for k in range(rows + 1)]
        mean = sum(
            a * b * np.exp(sequential.difference_above(coin(i, rows), coin(j, rows), margin))
            for i, a in enumerate(ours)
            for j, b in enumerate(theirs)
        )
        assert mean <= 1.0


def comb(n: int, k: int) -> float:
    return float(np.prod([(n - i) / (i + 1) for i in range(k)]))


def test_a_true_difference_is_found_also_when_one_arm_is_much_smaller() -> None:
    for ours, theirs in ((2000, 2000), (2000, 20_000), (20_000, 2000)):
        better = residuals(round(0.84 * ours), ours, 0.7)
        usual = residuals(round(0.70 * theirs), theirs, 0.7)
        assert sequential.difference_above(better, usual, 0.05) > np.log(1000)
        assert sequential.difference_above(usual, better, -0.05) < 0


def test_the_grid_of_split_points_never_overstates_and_costs_little() -> None:
    """Compared with every split point by itself, between the grid's points as well."""
    better, usual = residuals(840, 1000, 0.7), residuals(700, 1000, 0.7)
    for margin in (-0.05, 0.0, 0.05):
        found = sequential.difference_above(better, usual, margin)
        exact = [
            sequential.above(shifted(better), (1 + split) / 2)
            + sequential.above(shifted(usual.negated()), (1 - split + margin) / 2)
            for split in np.linspace(-0.2, 0.3, 1777)
        ]
        assert min(exact) * 0.8 - 0.1 < found <= min(exact)


def shifted(seen: Counted) -> Counted:
    return Counted((seen.values + 1) / 2, seen.counts)


def test_order_and_grouping_change_nothing() -> None:
    pairs = [(-1.0, 3), (0.5, 7), (0.0, 2), (0.5, 1), (-1.0, 4)]
    whole = counted(pairs)
    assert whole.values.tolist() == [-1.0, 0.0, 0.5]
    assert whole.counts.tolist() == [7.0, 2.0, 8.0]
    rng = np.random.default_rng(3)
    for _ in range(5):
        mixed = counted([pairs[place] for place in rng.permutation(len(pairs))])
        assert sequential.difference_above(mixed, whole, 0.1) == sequential.difference_above(
            whole, whole, 0.1
        )


def test_nothing_seen_is_no_evidence() -> None:
    nothing = counted([])
    assert nothing.mean is None
    assert sequential.above(nothing, 0.5) == 0.0
    assert sequential.difference_above(nothing, nothing, 0.05) == 0.0
    assert sequential.average([]) == 0.0
    # Without a second arm, the first one may be anywhere.
    assert sequential.difference_above(coin(900, 1000), nothing, 0.0) <= 0.0
    assert sequential.difference_above(nothing, coin(1, 1000), 0.0) <= 0.0


def test_impossible_counts_count_for_nothing() -> None:
    assert counted([(0.0, -5), (1.0, float("nan")), (1.0, 2)]).counts.tolist() == [0.0, 2.0]


def test_extreme_margins_stay_finite() -> None:
    ours, theirs = coin(10, 10), coin(0, 10)
    for margin in (-2.0, -1.0, 0.0, 1.0, 2.0):
        assert np.isfinite(sequential.difference_above(ours, theirs, margin))
    assert sequential.difference_above(ours, theirs, 1.0) <= 0.0


def test_enough_rows_do_not_overflow() -> None:
    huge = coin(10**9, 10**9)
    assert np.isfinite(sequential.above(huge, 0.1))
    assert sequential.average([1e6, 0.0]) == pytest.approx(1e6 - np.log(2))


@pytest.mark.parametrize("null", [0.0, 1.0, -0.1, float("nan")])
def test_a_null_without_an_alternative_is_a_bug(null: float) -> None:
    with pytest.raises(ValueError, match="not between"):
        sequential.above(coin(1, 2), null)


def test_tempering_never_strengthens() -> None:
    assert sequential.tempered(10.0, 5.0) == 2.0
    assert sequential.tempered(10.0, 0.5) == 10.0


def test_average_lies_between_the_smallest_and_the_largest() -> None:
    assert np.exp(sequential.average([np.log(1.0), np.log(3.0)])) == pytest.approx(2.0)
