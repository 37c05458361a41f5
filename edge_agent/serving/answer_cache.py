"""Answers to rows that were asked before, by the bytes that the model was given.

The same bytes give the same logits, so nothing of an answer changes but what it costs. A row that
the model could not answer is never kept.
"""

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edge_agent.inference.session import Float32

Bool = npt.NDArray[np.bool_]


class AnswerCache:
    """The latest rows of one release; the least recently used is dropped first.

    Belongs to the inference thread.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._rows: OrderedDict[bytes, Float32] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def answer(self, given: Float32, run: Callable[[Float32], Float32]) -> tuple[Float32, Bool]:
        """Logits of all rows, and which of them were known.

        Args:
            given: what the model takes, float32 [rows, ...].
            run: answers the unknown rows, float32 [rows, ...] -> float32 [rows, classes].

        Returns:
            float32 [rows, classes] and bool [rows].
        """
        keys = [row.tobytes() for row in given]
        found = [self._rows.get(key) for key in keys]
        known = np.array([row is not None for row in found])
        if known.all():
            logits = np.stack([row for row in found if row is not None])
        else:
            fresh = run(given if not known.any() else given[~known])
            logits = np.empty((len(given), fresh.shape[1]), np.float32)
            logits[~known] = fresh
            for place in np.flatnonzero(known):
                logits[place] = found[place]
        self._keep(keys, logits)
        return logits, known

    def _keep(self, keys: list[bytes], logits: Float32) -> None:
        for key, row in zip(keys, logits, strict=True):
            if np.isfinite(row).all():
                self._rows[key] = row.copy()
                self._rows.move_to_end(key)
        while len(self._rows) > self._capacity:
            self._rows.popitem(last=False)
