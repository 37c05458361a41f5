"""Tries a release on this device before it serves: golden rows, and what the model costs here."""

import time
from collections.abc import Callable

import msgspec
import numpy as np

from edge_agent.inference.session import Float32
from edge_agent.serving.release import LoadedRelease, Parted
from edge_agent.update import health
from edge_core.bundle import golden as goldens
from edge_core.bundle.golden import Golden
from edge_core.errors import SerinusError

WARM_UP_ROWS = 5
MEASURED_ROWS = 200
MEASURED_SECONDS = 1.0
TRIES = 3
"""The quietest counts: other work on the device makes a model look slower, never faster."""


def self_test(
    release: LoadedRelease,
    memory_bytes: int | None = None,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Compare what this device computes, and what that costs, with what the bundle declares.

    Args:
        release: opened, and not serving yet.
        memory_bytes: what the process grew by when it was opened; none where nobody looked.
        alive: called between its parts, each of which should be short.

    Raises:
        SerinusError: answers differ, or the release is over its budget here.
    """
    golden = release.golden()
    features = goldens.served(release.definition, golden.raw)
    samples = goldens.samples(release.definition, golden.raw)
    alive()
    answered = release.answer(samples, features)
    alive()
    expected, tolerance = golden.expected[release.target], release.variant.tolerance
    problem = health.golden_problem(
        golden.features, expected, features, answered.logits, tolerance
    ) or _embedding_problem(release, golden, answered)
    if not problem:
        budget = release.manifest.budget
        latency = measured_us(release, samples, features, budget.latency_us, alive=alive)
        problem = health.budget_problem(latency, memory_bytes, budget)
    if problem:
        raise SerinusError(f"self-test of {release.ref.name} failed: {problem}")


def _embedding_problem(release: LoadedRelease, golden: Golden, answered: Parted) -> str | None:
    shown = release.variant.embedding
    if answered.embedding is None or isinstance(shown, msgspec.UnsetType):
        return None
    expected = golden.embeddings[release.target]
    return health.embedding_problem(expected, answered.embedding, shown.tolerance)


def measured_us(
    release: LoadedRelease,
    samples: Float32,
    features: Float32,
    allowed_us: float,
    *,
    clock: Callable[[], float] = time.perf_counter,
    alive: Callable[[], None] = lambda: None,
) -> float | None:
    """Median time of the model for one golden row, in microseconds; none without rows.

    Measured again, a few times at most, while it is more than ``allowed_us``.
    """
    if not len(features):
        return None
    rows = np.arange(MEASURED_ROWS) % len(features)
    for row in rows[:WARM_UP_ROWS]:
        release.logits(samples[row : row + 1], features[row : row + 1])
        alive()
    best = float("inf")
    for _ in range(TRIES):
        found: list[float] = []
        begun = clock()
        for row in rows:
            started = clock()
            release.logits(samples[row : row + 1], features[row : row + 1])
            found.append(clock() - started)
            alive()
            if clock() - begun > MEASURED_SECONDS:
                break
        best = min(best, float(np.median(found)) * 1e6)
        if best <= allowed_us or not allowed_us:
            break
    return best
