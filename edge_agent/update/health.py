"""Judges a release on this very device: golden vectors before it serves, probation after. Pure."""

from typing import Literal

import msgspec
import numpy as np

from edge_agent.inference.session import Float32
from edge_agent.serving.engine import Totals

IDLE_FACTOR = 10
"""Without enough rows, probation ends well after this many times its length."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What probation demands."""

    seconds: float
    rows: int
    max_error_share: float


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
    worst = float(np.abs(logits - expected).max(initial=0.0))
    if not worst <= tolerance:
        return f"logits of the golden rows are off by up to {worst:.4g}; allowed is {tolerance:.4g}"
    return None


def probation(
    totals: Totals, elapsed: float, limits: Limits
) -> tuple[Literal["wait", "healthy", "unhealthy"], str]:
    """Judge what a newly active release did so far, and say why."""
    answered = totals.rows + totals.errors
    share = totals.errors / answered if answered else 0.0
    if answered >= limits.rows and share > limits.max_error_share:
        return "unhealthy", f"{totals.errors} of {answered} rows failed in probation"
    if elapsed >= limits.seconds and answered >= limits.rows:
        return "healthy", f"{answered} rows, {totals.errors} errors"
    if elapsed >= IDLE_FACTOR * limits.seconds and not totals.errors:
        return "healthy", f"only {answered} rows came, without errors"
    if elapsed >= IDLE_FACTOR * limits.seconds:
        return "unhealthy", f"{totals.errors} of only {answered} rows failed in probation"
    return "wait", ""
