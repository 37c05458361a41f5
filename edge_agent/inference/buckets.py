"""Batch sizes for which a runtime's memory is laid out once: 1, 2, 4, ..., 64."""

from collections.abc import Callable

import numpy as np

from edge_agent.inference.session import Float32

LARGEST = 64


def bucket_for(rows: int) -> int:
    """The smallest bucket that holds 1 to 64 rows."""
    return 1 << (rows - 1).bit_length()


def run_in_buckets(features: Float32, width: int, run: Callable[[Float32], Float32]) -> Float32:
    """Run any number of rows, at least one, in parts of at most 64.

    Args:
        features: float32 [batch, features].
        width: number of features that the model takes; numpy would stretch a single one.
        run: answers 1 to 64 rows with float32 [rows, classes].

    Raises:
        ValueError: the rows have another width.
    """
    if features.ndim != 2 or features.shape[1] != width:
        raise ValueError(f"rows of shape {list(features.shape)} for {width} features")
    if len(features) <= LARGEST:
        return run(features)
    starts = range(0, len(features), LARGEST)
    return np.concatenate([run(features[start : start + LARGEST]) for start in starts])
