"""Counts of a channel -> the figures that are watched: six of them, each for one way to drift."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

ChannelKind = Literal["input", "feature", "embedding", "score", "outcome"]
Measure = Literal["position", "spread", "mixture", "repetition", "nulls", "range"]

MEASURES: Final[tuple[Measure, ...]] = (
    "position",
    "spread",
    "mixture",
    "repetition",
    "nulls",
    "range",
)
POSITION, SPREAD, MIXTURE, REPETITION, NULLS, RANGE = range(len(MEASURES))
SHARES = np.array([False, False, True, True, True, True])
"""Measured as the arcsine of a share's root, whose spread does not depend on the share."""
RISES = np.array([False, False, True, True, True, True])
"""Only more of it is a drift."""
DEAD = np.array([0.03, 0.03, 0.03, 0.05, 0.03, 0.05])
"""Departures that nobody would act on, in units of the measure."""
FLOOR = np.array([0.01, 0.01, 0.01, 0.01, 0.005, 0.01])
"""The least standard deviation that is believed: nothing is constant for ever."""
MOST_SPREAD = 3.0
"""Normal scores end here, as those of a channel's guards do."""


class WatchedChannel(msgspec.Struct, frozen=True, kw_only=True):
    """One channel of a release: what it is, and how often training saw each of its bins."""

    name: str
    kind: ChannelKind
    usual: tuple[int, ...]
    """Counts below, bins ..., above, null; of an outcome: right, wrong."""
    ordered: bool = True
    """Whether its bins rise; classes do not."""

    @property
    def size(self) -> int:
        """Number of counts."""
        return len(self.usual)


class Channels:
    """All channels of a release, ready to be measured; counts lie flat, one after another."""

    def __init__(self, channels: Sequence[WatchedChannel]) -> None:
        self.channels = tuple(channels)
        sizes = np.array([channel.size for channel in channels])
        self.starts: Int64 = np.cumsum(np.append(0, sizes))[:-1]
        self.sizes: Int64 = sizes
        self.total = int(sizes.sum())
        self._scores = np.concatenate([normal_scores(channel) for channel in channels])
        self._training = np.concatenate([_shares(channel) for channel in channels])
        last = self.starts + sizes - 1
        self._null = np.zeros(self.total, bool)
        self._null[last] = True
        self._guard = np.zeros(self.total, bool)
        for channel, start, end in zip(channels, self.starts, last, strict=True):
            if channel.kind != "outcome":
                self._guard[[start, end - 1]] = True
        self._inner = np.concatenate([_inner(channel) for channel in channels])
        self.applies = np.array([_applies(channel) for channel in channels])
        """bool [channels, measures]."""

    def __len__(self) -> int:
        return len(self.channels)

    def rows(self, counts: Float64) -> Float64:
        """Values that each channel saw: [..., total] -> [..., channels]."""
        return self._sum(counts)

    def measure(self, counts: Float64) -> Float64:
        """Measure counts, float64 [slices, total], none negative.

        Returns:
            float64 [slices, channels, measures]; 0 for a channel that saw nothing.
        """
        rows = np.maximum(self._sum(counts), 1e-9)
        there = np.where(self._null, 0.0, counts)
        seen = np.maximum(self._sum(there), 1e-9)
        mean = self._sum(there * self._scores) / seen
        square = self._sum(there * self._scores**2) / seen
        shares = counts / np.repeat(rows, self.sizes, axis=-1)
        away = np.minimum(self._sum(np.abs(shares - self._training)) / 2, 1.0)
        found = np.stack(
            [
                mean,
                np.sqrt(np.maximum(square - mean**2, 0.0)),
                _stable(away),
                _stable(np.maximum.reduceat(shares * self._inner, self.starts, axis=-1)),
                _stable(self._sum(np.where(self._null, shares, 0.0))),
                _stable(self._sum(np.where(self._guard, shares, 0.0))),
            ],
            axis=-1,
        )
        return np.asarray(found, np.float64)

    def blurred(self, noise: Float64) -> Float64:
        """What noise for privacy alone does to each measure.

        Args:
            noise: float64 [slices, channels], standard deviation of one count over the channel's
                sum.

        Returns:
            float64 [slices, channels, measures], standard deviations, rather too large.
        """
        reach = np.sqrt(np.add.reduceat(self._scores**2, self.starts))
        of_shares = _stable(np.minimum(1.0, self.sizes * noise))
        columns = [noise * reach, noise * reach, *[of_shares] * 4]
        return np.asarray(np.stack(columns, axis=-1), np.float64)

    def _sum(self, values: Float64) -> Float64:
        return np.asarray(np.add.reduceat(values, self.starts, axis=-1), np.float64)


def share(value: float) -> float:
    """The share that :data:`SHARES` measures stand for."""
    return float(np.sin(min(max(value, 0.0), np.pi / 2)) ** 2)


def _stable(shares: Float64) -> Float64:
    """Source: Anscombe, "The transformation of Poisson, binomial ... data", 1948."""
    return np.asarray(np.arcsin(np.sqrt(np.clip(shares, 0.0, 1.0))), np.float64)


def _shares(channel: WatchedChannel) -> Float64:
    counts = np.array(channel.usual, np.float64)
    return np.asarray(counts / max(counts.sum(), 1.0), np.float64)


def normal_scores(channel: WatchedChannel) -> Float64:
    """Where each bin lies, in standard deviations of what training saw; 0 for nulls.

    The middle of the bin's share of the reference, as a quantile of the normal distribution
    (van der Waerden scores): outliers and units do not matter.
    """
    counts = np.array(channel.usual, np.float64)
    counts[-1] = 0.0
    if not channel.ordered or counts.sum() <= 0:
        return np.zeros(channel.size)
    shares = counts / counts.sum()
    middles = np.cumsum(shares) - shares / 2
    normal = NormalDist()
    least = normal.cdf(-MOST_SPREAD)
    scores = np.array([normal.inv_cdf(float(np.clip(m, least, 1 - least))) for m in middles])
    scores[-1] = 0.0
    return np.asarray(scores, np.float64)


def _inner(channel: WatchedChannel) -> Float64:
    """1 for bins of which one that fills up tells of a value that is stuck.

    Where values move as a whole, they fill the outermost bins of an ordered channel.
    """
    found = np.ones(channel.size)
    found[-1] = 0.0
    if channel.ordered and channel.size > 5:
        found[[0, 1, -3, -2]] = 0.0
    return found


def _applies(channel: WatchedChannel) -> Bool:
    found = np.ones(len(MEASURES), bool)
    if channel.kind == "outcome":
        found[:] = False
        found[NULLS] = True
    elif not channel.ordered:
        found[[POSITION, SPREAD, RANGE]] = False
    return found
