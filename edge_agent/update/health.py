"""Judges a release on this very device: a self-test before it serves, probation after. Pure."""

from typing import Literal, NamedTuple

import msgspec
import numpy as np

from edge_agent.conduct import Conduct
from edge_agent.inference.session import Float32
from edge_core.bundle.manifest import Budget
from edge_core.stats.histogram import Int64
from edge_core.stats.latency import LatencyHistogram

IDLE_FACTOR = 10
"""Without enough rows, probation ends well after this many times its length."""
JUDGED_QUANTILE = 0.9
FEWEST_ROWS = 50
"""Rows of either release without which latencies and scores tell nothing."""

Outcome = Literal["wait", "healthy", "unhealthy"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What probation demands."""

    seconds: float
    rows: int
    """Answers without which nothing is concluded from errors, latencies or scores."""
    max_error_share: float
    max_latency_factor: float = 4.0
    """How much slower than the release before it may be, where it is over its own budget."""
    max_divergence: float = 0.5
    """How far, 0 to 1, its answers may be from earlier ones and from its reference."""


class Scores(NamedTuple):
    """What a release answered, beside what it answered when it was built."""

    classes: list[str]
    conduct: Conduct
    expected_predicted: Int64
    """Counts of the reference by class number."""
    expected_confidence: Int64
    """Counts of the reference by bin of confidence."""


class Trial(NamedTuple):
    """What is known of a newly active release, and of the one before."""

    elapsed: float
    """Seconds since the trial began."""
    rows: int
    errors: int
    restarts: int
    """Starts of the process since the trial began."""
    budget_us: float
    """Latency that the release declares; 0 for none."""
    scores: Scores
    before: Scores | None
    """Of the release before, lately; none where there is none or this process never served it."""

    def told(self) -> str:
        """The figures, for a person."""
        text = f"{self.rows + self.errors} rows, {self.errors} errors, {self.restarts} restarts"
        latency = _latency_us(self.scores.conduct)
        return text if latency is None else f"{text}, 90 % within {latency:.0f} us"


def golden_problem(
    recorded: Float32, expected: Float32, features: Float32, logits: Float32, tolerance: float
) -> str | None:
    """Compare what this device computed with what the bundle recorded; none when it agrees.

    Args:
        recorded: the bundle's features, to be met bit for bit.
        expected: the bundle's logits, to be met within ``tolerance``.
        features: this device's.
        logits: this device's.
        tolerance: of the variant.
    """
    if features.shape != recorded.shape or logits.shape != expected.shape:
        return f"golden vectors give shapes {features.shape} and {logits.shape}"
    differing = int((features.view(np.uint32) != recorded.view(np.uint32)).any(axis=1).sum())
    if differing:
        return f"features of {differing} of {len(features)} golden rows differ from the bundle's"
    return _off("logits", expected, logits, tolerance)


def embedding_problem(expected: Float32, embedding: Float32, tolerance: float) -> str | None:
    """As :func:`golden_problem`, of the second output, float32 [rows, coordinates]."""
    if embedding.shape != expected.shape:
        return f"golden vectors give an embedding of shape {embedding.shape}"
    return _off("embeddings", expected, embedding, tolerance)


def _off(what: str, expected: Float32, found: Float32, tolerance: float) -> str | None:
    worst = float(np.abs(found - expected).max(initial=0.0))
    if not worst <= tolerance:
        return f"{what} of the golden rows are off by up to {worst:.4g}; allowed is {tolerance:.4g}"
    return None


def budget_problem(
    latency_us: float | None, memory_bytes: int | None, budget: Budget
) -> str | None:
    """Compare what was measured here with what the release declares; none when it is kept.

    A limit of 0 and a figure that could not be measured hold nobody to anything.
    """
    if budget.latency_us and latency_us is not None and latency_us > budget.latency_us:
        return (
            f"one row takes {latency_us:.0f} us here (median over the golden rows); "
            f"its budget allows {budget.latency_us:.0f} us"
        )
    if budget.memory_bytes and memory_bytes is not None and memory_bytes > budget.memory_bytes:
        return (
            f"opening it took {memory_bytes} bytes of memory here; "
            f"its budget allows {budget.memory_bytes}"
        )
    return None


def probation(trial: Trial, limits: Limits) -> tuple[Outcome, str]:
    """Judge what a newly active release did so far, and say why.

    Errors end the trial at once. Latencies and scores are looked at when its time is over, since a
    burst in the beginning is no picture of the device's traffic.
    """
    answered = trial.rows + trial.errors
    share = trial.errors / answered if answered else 0.0
    if answered >= limits.rows and share > limits.max_error_share:
        return "unhealthy", f"{trial.errors} of {answered} rows failed in probation"
    if trial.elapsed >= limits.seconds and answered >= limits.rows:
        problem = latency_problem(trial, limits) or score_problem(trial, limits)
        if problem:
            return "unhealthy", f"{problem} ({trial.told()})"
        return "healthy", trial.told()
    if trial.elapsed >= IDLE_FACTOR * limits.seconds and not trial.errors:
        return "healthy", f"too few rows to judge: {trial.told()}"
    if trial.elapsed >= IDLE_FACTOR * limits.seconds:
        return "unhealthy", f"{trial.errors} of only {answered} rows failed in probation"
    return "wait", ""


def latency_problem(trial: Trial, limits: Limits) -> str | None:
    """Whether answers take far longer than the previous release's did; its budget is its right.

    Upper bounds of bins are compared, so a factor is seen within a factor of two.
    """
    before = trial.before
    if before is None or _too_few(trial.scores, before, limits):
        return None
    now, then = _latency_us(trial.scores.conduct), _latency_us(before.conduct)
    if now is None or then is None or now <= trial.budget_us:
        return None
    if now <= limits.max_latency_factor * then:
        return None
    return (
        f"90 % of answers take up to {now:.0f} us, over its budget of {trial.budget_us:.0f} us and "
        f"{now / then:.0f} times the previous release's {then:.0f} us; "
        f"allowed is {limits.max_latency_factor:g} times"
    )


def score_problem(trial: Trial, limits: Limits) -> str | None:
    """Whether the answers are like neither the previous release's nor the release's own reference.

    Both are asked, since people do other things at other hours, and a device need not be like the
    data that a release was built from. A constant answer is not excused by a reference, since a
    model that always gives it has such a reference.
    """
    scores, before = trial.scores, trial.before
    if before is None or _too_few(scores, before, limits):
        return None
    most = limits.max_divergence
    if scores.classes == before.classes:
        earlier = divergence(scores.conduct.predicted, before.conduct.predicted)
        built = divergence(scores.conduct.predicted, scores.expected_predicted)
        top = int(scores.conduct.predicted.argmax())
        share = scores.conduct.predicted[top] / max(int(scores.conduct.predicted.sum()), 1)
        if earlier > most and (built > most or share == 1.0):
            return (
                f"{share:.0%} of the answers are {scores.classes[top]}: they differ from the "
                f"previous release's by {earlier:.2f} and from its reference by {built:.2f}; "
                f"allowed is {most:g}"
            )
    own = divergence(scores.conduct.confidence, scores.expected_confidence)
    usual = distance(before.conduct.confidence, before.expected_confidence)
    if own - usual > most:
        return (
            f"confidences differ from its reference by {own:.2f}, and the previous release's "
            f"did by {usual:.2f}; allowed is {most:g} more"
        )
    return None


def distance(one: Int64, other: Int64) -> float:
    """Total variation of two counts, 0 to 1; 0 where one of them is empty or has other bins."""
    n, m = int(one.sum()), int(other.sum())
    if not n or not m or len(one) != len(other):
        return 0.0
    return float(np.abs(one / n - other / m).sum()) / 2


def divergence(one: Int64, other: Int64) -> float:
    """The distance of two counts, less what chance alone makes of as few rows.

    By Cauchy and Schwarz two samples of one distribution over k classes differ by at most
    sqrt((k - 1) (1 / n + 1 / m)) / 2 on average.
    """
    n, m = int(one.sum()), int(other.sum())
    if not n or not m or len(one) != len(other):
        return 0.0
    classes = int(((one + other) > 0).sum())
    return max(0.0, distance(one, other) - float(np.sqrt((classes - 1) * (1 / n + 1 / m))) / 2)


def _too_few(now: Scores, before: Scores, limits: Limits) -> bool:
    return min(now.conduct.rows, before.conduct.rows) < max(limits.rows, FEWEST_ROWS)


def _latency_us(conduct: Conduct) -> float | None:
    return LatencyHistogram(conduct.latency).quantile(JUDGED_QUANTILE)
