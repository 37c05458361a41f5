"""Measures a quantised model against the float one. No thresholds."""

import time
from collections.abc import Callable

import numpy as np

from converters.export import Float32

BATCHES = (1, 16, 64)
REPEATS = 50


def numeric_error(reference: Float32, logits: Float32) -> float:
    """Rms difference of logits over the standard deviation of the reference's."""
    spread = float(np.std(reference.astype(np.float64)))
    rms = float(np.sqrt(np.mean((logits.astype(np.float64) - reference) ** 2)))
    return rms / spread if spread > 0 else float(rms > 0)


def top1_agreement(reference: Float32, logits: Float32) -> float:
    """Share of rows with the same best class."""
    return float((reference.argmax(axis=1) == logits.argmax(axis=1)).mean())


def golden_tolerance(expected: Float32) -> float:
    """Difference of a golden logit that another machine may show: a few int8 steps."""
    return max(1e-4, 0.03 * float(np.ptp(expected)))


def latency_us(run: Callable[[Float32], Float32], features: Float32) -> dict[str, float]:
    """Median microseconds by batch size."""
    found = {}
    for batch in BATCHES:
        rows = np.resize(features, (batch, features.shape[1])).astype(np.float32)
        taken = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            run(rows)
            taken.append((time.perf_counter() - started) * 1e6)
        found[str(batch)] = round(float(np.median(taken)), 1)
    return found
