"""Replays a bundle's golden vectors on this device, through the real evaluator and runtime."""

from edge_agent.serving.release import LoadedRelease
from edge_agent.update import health
from edge_core.errors import SerinusError


def self_test(release: LoadedRelease) -> None:
    """Compare what this device computes with what the bundle recorded.

    Raises:
        SerinusError: they differ.
    """
    golden = release.golden()
    evaluator = release.evaluator
    features = evaluator.evaluate(evaluator.quantise(golden.samples))
    logits = release.logits(golden.samples, features)
    problem = health.golden_problem(golden, features, logits, release.variant.tolerance)
    if problem:
        raise SerinusError(f"self-test of {release.ref.name} failed: {problem}")
