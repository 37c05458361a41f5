"""The rules of self-test and probation, on values alone."""

import re
from typing import Any

import numpy as np
import pytest

from edge_agent.conduct import Conduct
from edge_agent.update import health
from edge_agent.update.health import Limits, Scores, Trial
from edge_core.bundle.manifest import Budget
from edge_core.stats.latency import LatencyHistogram

LIMITS = Limits(seconds=60.0, rows=100, max_error_share=0.02)
CLASSES = ["still", "shake", "tilt"]
EVEN = [1, 1, 1]


def scores(
    predicted: list[int], *, us: float = 100.0, confidence: list[int] | None = None, **changes: Any
) -> Scores:
    rows = sum(predicted)
    latency = LatencyHistogram()
    latency.update([us] * rows)
    conduct = Conduct(
        rows=rows,
        latency=latency.counts,
        predicted=np.array(predicted),
        confidence=np.array(confidence or [rows, rows]),
    )
    plain = Scores(CLASSES, conduct, np.array(EVEN) * 1000, np.array([500, 500]))
    return plain._replace(**changes)


def trial(now: Scores, before: Scores | None = None, **changes: Any) -> Trial:
    plain = Trial(
        elapsed=60.0,
        rows=now.conduct.rows,
        errors=0,
        restarts=0,
        budget_us=1000.0,
        scores=now,
        before=before,
    )
    return plain._replace(**changes)


USUAL = scores([70, 60, 70])


def test_a_quiet_trial_passes_with_its_figures() -> None:
    verdict, why = health.probation(trial(USUAL, USUAL, restarts=1), LIMITS)
    assert verdict == "healthy"
    assert why == "200 rows, 0 errors, 1 restarts, 90 % within 128 us"


def test_errors_end_a_trial_at_once_and_too_few_rows_do_not() -> None:
    assert health.probation(trial(USUAL, elapsed=1.0, rows=97, errors=3), LIMITS) == (
        "unhealthy",
        "3 of 100 rows failed in probation",
    )
    assert health.probation(trial(USUAL, elapsed=1.0, rows=96, errors=3), LIMITS)[0] == "wait"
    assert health.probation(trial(USUAL, elapsed=1.0, rows=98, errors=2), LIMITS)[0] == "wait"


def test_a_device_that_nobody_asks_ends_its_trial_late() -> None:
    few = scores([1, 0, 0])
    assert health.probation(trial(few, elapsed=599.0), LIMITS)[0] == "wait"
    verdict, why = health.probation(trial(few, elapsed=600.0), LIMITS)
    assert (verdict, why[:8]) == ("healthy", "too few ")
    assert health.probation(trial(few, elapsed=600.0, errors=1), LIMITS)[0] == "unhealthy"


@pytest.mark.parametrize(
    ("now_us", "before_us", "budget_us", "verdict"),
    [
        (20_000.0, 500.0, 1000.0, "unhealthy"),
        (20_000.0, 500.0, 0.0, "unhealthy"),  # no budget is no right
        (20_000.0, 500.0, 50_000.0, "healthy"),  # slower, and as it declares
        (20_000.0, 9_000.0, 1000.0, "healthy"),  # this device is slow anyway
        (1_900.0, 500.0, 1000.0, "healthy"),  # within the factor
    ],
)
def test_latency_beside_the_release_before(
    now_us: float, before_us: float, budget_us: float, verdict: str
) -> None:
    now, before = scores([70, 60, 70], us=now_us), scores([70, 60, 70], us=before_us)
    found, why = health.probation(trial(now, before, budget_us=budget_us), LIMITS)
    assert found == verdict
    if verdict == "unhealthy":
        assert "up to 32768 us" in why
        assert "512 us; allowed is 4 times" in why
    assert health.probation(trial(now, budget_us=budget_us), LIMITS)[0] == "healthy"


def test_a_constant_answer_is_not_taken_for_a_model() -> None:
    verdict, why = health.probation(trial(scores([0, 200, 0]), USUAL), LIMITS)
    assert verdict == "unhealthy"
    assert why.startswith("100% of the answers are shake: they differ from the previous release's")
    assert "allowed is 0.5" in why
    own = np.array([0, 1000, 0])  # that of a model which was built to say nothing else
    verdict, _ = health.probation(trial(scores([0, 200, 0], expected_predicted=own), USUAL), LIMITS)
    assert verdict == "unhealthy"
    # In the night everything is still, and the release before said so, too.
    assert health.probation(trial(scores([200, 0, 0]), scores([198, 1, 1])), LIMITS)[0] == "healthy"
    # By day the answers are as in training again.
    assert health.probation(trial(USUAL, scores([198, 1, 1])), LIMITS)[0] == "healthy"
    # With nothing to compare, a device at rest is none to blame.
    assert health.probation(trial(scores([200, 0, 0])), LIMITS)[0] == "healthy"


def test_scores_are_looked_at_when_the_time_is_over_and_with_enough_rows_only() -> None:
    constant = scores([0, 200, 0])
    assert health.probation(trial(constant, USUAL, elapsed=59.0), LIMITS)[0] == "wait"
    few = scores([10, 10, 10])
    assert health.probation(trial(constant, few), LIMITS)[0] == "healthy"
    other = USUAL._replace(classes=["a", "b", "c"])
    assert health.probation(trial(constant, other), LIMITS)[0] == "healthy"


def test_confidences_that_collapse_are_seen_and_a_strange_device_is_not_blamed() -> None:
    collapsed = scores([70, 60, 70], confidence=[200, 0])
    spread = scores([70, 60, 70], confidence=[100, 100])
    limits = Limits(seconds=60.0, rows=100, max_error_share=0.02, max_divergence=0.3)
    verdict, why = health.probation(trial(collapsed, spread), limits)
    assert verdict == "unhealthy"
    assert "confidences differ from its reference" in why
    assert health.probation(trial(collapsed, collapsed), limits)[0] == "healthy"


def test_few_rows_of_many_classes_differ_by_chance_and_are_not_blamed() -> None:
    rng = np.random.default_rng(0)
    blamed = 0
    for _ in range(300):
        one, other = (rng.multinomial(100, np.full(100, 0.01)) for _ in range(2))
        assert health.distance(one, other) > 0.35  # what a plain comparison would say
        blamed += health.divergence(one, other) > 0.1
    assert blamed == 0


@pytest.mark.parametrize(
    ("latency", "memory", "said"),
    [
        (100.0, 1000, None),
        (None, None, None),
        (501.0, 1000, "one row takes 501 us here .* allows 500 us"),
        (100.0, 2001, "opening it took 2001 bytes .* allows 2000"),
    ],
)
def test_a_budget_holds_what_was_measured(
    latency: float | None, memory: int | None, said: str | None
) -> None:
    budget = Budget(latency_us=500.0, memory_bytes=2000, size_bytes=1)
    found = health.budget_problem(latency, memory, budget)
    assert (found is None) == (said is None)
    assert found is None or re.search(said or "", found)
    free = Budget(latency_us=0.0, memory_bytes=0, size_bytes=0)
    assert health.budget_problem(1e9, 10**12, free) is None
