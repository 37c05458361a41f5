"""Batch sizes for which a runtime's memory is laid out once: 1, 2, 4, ..., 64."""

from collections.abc import Callable

import numpy as np

from edge_agent.inference.session import Float32

LARGEST = 64


def bucket_for(rows: int) -> int:
    """The smallest bucket that holds 1 to 64 rows."""
    return 1 << (rows - 1).bit_length()


def run_in_buckets(
    given: Float32, shape: tuple[int, ...], run: Callable[[Float32], Float32]
) -> Float32:
    """Run any number of rows, at least one, in parts of at most 64.

    Args:
        given: float32 [batch, ...].
        shape: what one row has to look like; numpy would stretch a single value.
        run: answers 1 to 64 rows with float32 [rows, columns].

    Raises:
        ValueError: the rows have another shape.
    """
    if given.shape[1:] != shape:
        raise ValueError(f"rows of shape {list(given.shape[1:])} where {list(shape)} is taken")
    if len(given) <= LARGEST:
        return run(given)
    starts = range(0, len(given), LARGEST)
    return np.concatenate([run(given[start : start + LARGEST]) for start in starts])
