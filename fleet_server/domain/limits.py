"""What each metric of a plan may lose, and how sure one has to be."""

import msgspec

from fleet_server.domain.plan import Metric, Plan

SLICE_MARGIN = 2.0
"""A slice has fewer rows, so it may look worse by this many times what the whole may."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one metric, nothing left open."""

    margin: float
    allowed: float
    alpha: float


def limits_of(plan: Plan, metric: str) -> Limits:
    """Fill in what the plan leaves open; ``metric`` names a field of its ``metrics``."""
    given: Metric = getattr(plan.metrics, metric)
    accuracy = plan.metrics.accuracy
    delta = plan.delta if accuracy.allowed is None else accuracy.allowed
    worse = plan.delta if accuracy.margin is None else accuracy.margin
    margin, allowed = {
        "accuracy": (worse, delta),
        "slices": (worse, SLICE_MARGIN * delta),
        "errors": (plan.error_margin, None),
        "latency": (plan.latency_margin, None),
    }.get(metric, (plan.error_margin, None))
    margin = margin if given.margin is None else given.margin
    allowed = margin if allowed is None else allowed
    return Limits(
        margin=margin,
        allowed=allowed if given.allowed is None else given.allowed,
        alpha=plan.alpha if given.alpha is None else given.alpha,
    )
