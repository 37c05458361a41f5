"""Measures a quantised model against the float one. No thresholds."""

import numpy as np

from converters.data.dataset import Float32


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
