"""Replays a bundle's golden vectors on this device, through the real evaluator and runtime."""

from edge_agent.serving.release import LoadedRelease
from edge_agent.update import health
from edge_core.bundle import golden as goldens
from edge_core.errors import SerinusError


def self_test(release: LoadedRelease) -> None:
    """Compare what this device computes with what the bundle recorded.

    Raises:
        SerinusError: they differ.
    """
    golden = release.golden()
    features = goldens.served(release.definition, golden.raw)
    logits = release.logits(goldens.samples(release.definition, golden.raw), features)
    expected, tolerance = golden.expected[release.target], release.variant.tolerance
    problem = health.golden_problem(golden.features, expected, features, logits, tolerance)
    if problem:
        raise SerinusError(f"self-test of {release.ref.name} failed: {problem}")
