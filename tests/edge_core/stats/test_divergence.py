"""Total variation of counts."""

import numpy as np
import pytest

from edge_core.stats.divergence import total_variation


def distances(first: list[int], second: list[int], sizes: list[int]) -> list[float]:
    found: list[float] = total_variation(sizes, np.array(first), np.array(second)).tolist()
    return found


def test_each_channel_is_compared_by_its_shares() -> None:
    first = [10, 10, 0, 4]
    second = [200, 0, 1, 3]
    assert distances(first, second, [2, 2]) == pytest.approx([0.5, 0.25])


def test_equal_mixtures_and_disjoint_ones_are_the_two_ends() -> None:
    assert distances([1, 2, 3], [10, 20, 30], [3]) == pytest.approx([0.0])
    assert distances([5, 0], [0, 7], [2]) == pytest.approx([1.0])


def test_a_channel_that_saw_nothing_is_at_no_distance() -> None:
    assert distances([0, 0, 5, 5], [3, 4, 0, 0], [2, 2]) == [0.0, 0.0]


def test_it_does_not_matter_which_comes_first() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 50, 12), rng.integers(0, 50, 12)
    one = total_variation([4, 3, 5], first, second)
    assert one == pytest.approx(total_variation([4, 3, 5], second, first))
