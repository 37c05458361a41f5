"""How others watch the same hours: KS, PSI and ADWIN, and an alarm that always fires."""

from typing import Protocol

import numpy as np
import numpy.typing as npt
from river.drift import ADWIN
from scipy.stats import kstwobign

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

PSI_LIMIT = 0.2
"""The customary limit of a large change."""
KS_ALPHA = 0.05


class Peer(Protocol):
    """Sees counts float64 [streams, bins] of one hour; says which streams raise an alarm."""

    def hour(self, counts: Float64) -> Bool:
        """Take one hour."""
        ...


class Ks:
    """Two-sample Kolmogorov-Smirnov against the learned weeks, each hour anew."""

    def __init__(self, usual: Float64, *, shared: bool) -> None:
        self._usual = usual
        self._alpha = KS_ALPHA / len(usual) if shared else KS_ALPHA

    def hour(self, counts: Float64) -> Bool:
        """Take one hour; ties within bins make the test conservative."""
        before, now = (np.maximum(c.sum(axis=1), 1.0) for c in (self._usual, counts))
        shares = (self._usual / before[:, None], counts / now[:, None])
        distance = np.abs(np.cumsum(shares[0] - shares[1], axis=1)).max(axis=1)
        p = kstwobign.sf(distance * np.sqrt(before * now / (before + now)))
        return np.asarray(p < self._alpha)


class Psi:
    """Population stability index against the learned weeks."""

    def __init__(self, usual: Float64) -> None:
        self._usual = (usual + 0.5) / (usual + 0.5).sum(axis=1, keepdims=True)

    def hour(self, counts: Float64) -> Bool:
        """Take one hour."""
        now = (counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True)
        index = ((now - self._usual) * np.log(now / self._usual)).sum(axis=1)
        return np.asarray(index > PSI_LIMIT)


class Adwin:
    """Adaptive windowing (Bifet and Gavalda, 2007) over each stream's mean score by the hour."""

    def __init__(self, scores: Float64, streams: int) -> None:
        self._scores = scores
        self._each = [ADWIN() for _ in range(streams)]

    def hour(self, counts: Float64) -> Bool:
        """Take one hour."""
        means = (counts * self._scores).sum(axis=1) / np.maximum(counts.sum(axis=1), 1.0)
        found = np.zeros(len(means), bool)
        for place, (detector, mean) in enumerate(zip(self._each, means.tolist(), strict=True)):
            detector.update(mean)
            found[place] = detector.drift_detected
        return found


class Always:
    """The baseline that misses nothing."""

    def hour(self, counts: Float64) -> Bool:
        """Take one hour."""
        return np.ones(len(counts), bool)
