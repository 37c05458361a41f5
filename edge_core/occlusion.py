"""What each input did to an answer, by occlusion: for any model, without looking into it.

Each input in turn takes the median that the release's reference has for it, as if nothing unusual
had been seen there; its contribution is by how much a class's probability was higher before.

Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (2014), section
4.2, with a typical value where they paint grey.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_core.stats.histogram import Channel

Float32 = npt.NDArray[np.float32]
Scored = Callable[[Float32], Float32]
"""Rows of what is occluded, float32 [n, ..., inputs] -> probabilities float32 [n, classes]."""


class Effects(NamedTuple):
    """What occlusion did."""

    probabilities: Float32
    """Of the rows as they are, float32 [rows, classes]."""
    changes: Float32
    """By how much they were higher than without an input, float32 [rows, inputs, classes]."""


def effects(scored: Scored, rows: Float32, medians: Float32) -> Effects:
    """Occlude every input of every row, in one call of the model.

    Args:
        scored: the model.
        rows: float32 [rows, ..., inputs].
        medians: what an input takes when occluded, float32 [inputs].
    """
    count, inputs = len(rows), rows.shape[-1]
    asked = np.repeat(rows[None], 1 + inputs, axis=0)
    for place in range(inputs):
        asked[1 + place, ..., place] = medians[place]
    probabilities = scored(asked.reshape(-1, *rows.shape[1:])).reshape(1 + inputs, count, -1)
    return Effects(probabilities[0], (probabilities[0] - probabilities[1:]).transpose(1, 0, 2))


def median(channel: Channel) -> float:
    """The channel's median over the reference, interpolated within its bin.

    Values below and above the edges count as the outermost edges; of a channel without any value
    it is the lowest edge.
    """
    edges, counts = np.array(channel.edges), np.array(channel.counts[:-1], np.float64)
    reached = np.cumsum(counts)
    half = reached[-1] / 2
    if half == 0:
        return float(edges[0])
    place = int(np.searchsorted(reached, half))
    if place == 0:
        return float(edges[0])
    if place > len(edges) - 1:
        return float(edges[-1])
    share = (half - reached[place - 1]) / counts[place]
    return float(edges[place - 1] + share * (edges[place] - edges[place - 1]))


def medians(channels: Sequence[Channel], names: Sequence[str]) -> Float32:
    """Of each of these channels, float32 [names]; as :func:`median`."""
    known = {channel.name: channel for channel in channels}
    return np.array([median(known[name]) for name in names], np.float32)
