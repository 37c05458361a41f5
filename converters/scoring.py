"""Declared metrics of a model's answers, overall and on each slice that has rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from converters.data.dataset import Float32, Int64

Metric = Callable[[Float32, Int64], float]
"""Logits float32 [rows, classes] and class numbers int64 [rows] -> a figure; more is better."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """What answers to one set of rows are worth."""

    metrics: Mapping[str, Metric]
    labels: Int64
    slices: Mapping[str, npt.NDArray[np.bool_]]
    """``name=value`` -> bool [rows]."""

    def score(self, logits: Float32) -> dict[str, float]:
        """``metric`` and ``metric/name=value`` -> figure."""
        found = {name: metric(logits, self.labels) for name, metric in self.metrics.items()}
        for place, mask in self.slices.items():
            if mask.any():
                found |= {
                    f"{name}/{place}": metric(logits[mask], self.labels[mask])
                    for name, metric in self.metrics.items()
                }
        return {name: float(value) for name, value in found.items()}

    def confusion(self, logits: Float32) -> dict[str, Int64]:
        """``all`` and each slice -> counts int64 [classes, classes], rows are true classes."""
        every = np.ones(len(self.labels), dtype=np.bool_)
        return {
            name: self._counts(logits, mask)
            for name, mask in {"all": every, **self.slices}.items()
            if mask.any()
        }

    def _counts(self, logits: Float32, mask: npt.NDArray[np.bool_]) -> Int64:
        counts = np.zeros((logits.shape[1], logits.shape[1]), dtype=np.int64)
        np.add.at(counts, (self.labels[mask], logits[mask].argmax(axis=1)), 1)
        return counts
