"""Accuracy without labels: right while confidence means what it meant."""

import numpy as np

from fleet_server.domain.estimation import MIN_LABELLED, estimate

RATES = np.array([0.5, 0.6, 0.7, 0.85, 0.95])


def test_it_follows_a_change_of_inputs() -> None:
    rng = np.random.default_rng(0)
    calm, hard = np.array([1, 2, 3, 6, 8]) * 500, np.array([8, 6, 3, 2, 1]) * 500
    right = rng.binomial(calm, RATES)
    found = estimate(hard, right, calm - right, 1.0)
    assert found is not None
    truth = float(hard @ RATES / hard.sum())
    assert found.low < truth < found.high
    assert abs(found.accuracy - truth) < 0.02


def test_its_interval_covers_what_labelled_rows_leave_open() -> None:
    rng = np.random.default_rng(1)
    seen, labelled = np.array([100, 100, 200, 300, 300]), np.array([20, 20, 40, 60, 60])
    truth, covered = float(seen @ RATES / seen.sum()), 0
    for _ in range(300):
        right = rng.binomial(labelled, RATES)
        found = estimate(seen, right, labelled - right, 1.0)
        assert found is not None
        covered += found.low <= truth <= found.high
    assert covered >= 270


def test_it_says_nothing_from_few_labels_or_about_no_rows() -> None:
    assert estimate([100], [MIN_LABELLED - 1], [0], 1.0) is None
    assert estimate([0], [500], [100], 1.0) is None


def test_noisy_counts_below_zero_do_no_harm() -> None:
    found = estimate([-3, 200], [-2, 150], [1, 50], 1.0)
    assert found is not None
    assert 0 <= found.low <= found.accuracy <= found.high <= 1
