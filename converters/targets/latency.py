"""How long answers take on this machine."""

import time

import numpy as np

from converters.model_file import Runner
from converters.tensors import Feeds, rows_of, take

BATCHES = (1, 16, 64)
REPEATS = 50
SECONDS = 2.0
"""For one batch size, however slow the model is; one repetition at least."""


def median_us(run: Runner, feeds: Feeds) -> dict[str, float]:
    """Median microseconds by batch size; nothing where no rows are given."""
    if rows_of(feeds) == 0:
        return {}
    return {str(batch): round(_median(run, feeds, batch), 1) for batch in BATCHES}


def _median(run: Runner, feeds: Feeds, batch: int) -> float:
    rows = take(feeds, np.arange(batch) % rows_of(feeds))
    run(rows)  # the first one lays out memory
    taken: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(taken) < REPEATS and (not taken or time.perf_counter() < end):
        started = time.perf_counter()
        run(rows)
        taken.append((time.perf_counter() - started) * 1e6)
    return float(np.median(taken))
