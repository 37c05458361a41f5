"""Noise has the law that was promised, and adds up to nothing."""

import math

import numpy as np
import pytest

from edge_core.stats import noise

DRAWS = 200_000


@pytest.mark.parametrize(("epsilon", "groups", "values"), [(1.0, 1, 1), (2.0, 10, 1), (1, 40, 200)])
def test_the_noise_is_two_sided_geometric(epsilon: float, groups: int, values: int) -> None:
    ratio = noise.ratio(epsilon, groups, values)
    assert math.log(1 / ratio) == pytest.approx(epsilon / groups / (2 * values))
    rng = np.random.default_rng(3)
    found = noise.draw(np.full(DRAWS, ratio), rng)
    spread = math.sqrt(noise.variance(ratio))
    assert abs(found.mean()) < 5 * spread / math.sqrt(DRAWS)
    assert found.std() == pytest.approx(spread, rel=0.03)
    # P(0) = (1 - ratio) / (1 + ratio), and each step away is less likely by the ratio.
    least = (1 - ratio) / (1 + ratio)
    for value in (0, 1, -1, 2, -3):
        share = least * ratio ** abs(value)
        error = 5 * math.sqrt(share / DRAWS) + 1e-9
        assert abs((found == value).mean() - share) < error


def test_neighbours_are_as_alike_as_epsilon_says() -> None:
    """One row moved from one bin to another changes the odds of any outcome by e**epsilon."""
    ratio = noise.ratio(1.0, 1, 1)

    def likelihood(outcome: tuple[int, int], truth: tuple[int, int]) -> float:
        return math.prod(ratio ** abs(o - t) for o, t in zip(outcome, truth, strict=True))

    outcomes = [(a, b) for a in range(-5, 15) for b in range(-5, 15)]
    odds = [likelihood(o, (4, 6)) / likelihood(o, (5, 5)) for o in outcomes]
    assert max(odds) == pytest.approx(math.e)
    assert min(odds) == pytest.approx(1 / math.e)


def test_every_count_gets_its_channels_noise() -> None:
    sizes, ratios = [3, 2], [0.999, 1e-300]
    rows = [
        noise.noisy(np.array([5, 0, 0, 7, 0]), sizes, ratios, np.random.default_rng(seed))
        for seed in range(50)
    ]
    found = np.array(rows)
    assert (found[:, 3:] == [7, 0]).all()
    assert (found[:, :3].std(axis=0) > 300).all()
    assert (found < 0).any()


def test_the_bound_holds_and_is_not_far() -> None:
    ratio, counts = noise.ratio(1.0, 43, 1), 13
    sums = noise.draw(np.full(50_000 * counts, ratio), np.random.default_rng(1))
    largest = np.abs(sums.reshape(-1, counts).sum(axis=1)).max()
    assert largest < noise.bound(ratio, counts) < 12 * largest
