"""Answers to rows that were asked before, by the bytes that the model was given.

The same bytes give the same answer, so nothing of an answer changes but what it costs. A row that
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
        """What the model gives for all rows, and which of them were known.

        Args:
            given: what the model takes, float32 [rows, ...].
            run: answers the unknown rows, float32 [rows, ...] -> float32 [rows, columns].

        Returns:
            float32 [rows, columns] and bool [rows].
        """
        keys = [row.tobytes() for row in given]
        found = [self._rows.get(key) for key in keys]
        known = np.array([row is not None for row in found])
        if known.all():
            answers = np.stack([row for row in found if row is not None])
        else:
            fresh = run(given if not known.any() else given[~known])
            answers = np.empty((len(given), fresh.shape[1]), np.float32)
            answers[~known] = fresh
            for place in np.flatnonzero(known):
                answers[place] = found[place]
        self._keep(keys, answers)
        return answers, known

    def _keep(self, keys: list[bytes], answers: Float32) -> None:
        for key, row in zip(keys, answers, strict=True):
            if np.isfinite(row).all():
                self._rows[key] = row.copy()
                self._rows.move_to_end(key)
        while len(self._rows) > self._capacity:
            self._rows.popitem(last=False)
