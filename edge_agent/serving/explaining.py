"""What each input did to an answer, by occlusion: for any model, without looking into it.

Each input in turn takes the median that the release's reference has for it, as if nothing unusual
had been seen there; its contribution is by how much a class's probability was higher before.

Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (2014), section
4.2, with a typical value where they paint grey.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from edge_agent.inference.session import Float32
from edge_agent.serving.explanation import By, Explanation
from edge_agent.serving.release import LoadedRelease
from edge_core import outputs
from edge_core.errors import InvalidInput, Unavailable
from edge_core.stats.histogram import Channel

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


def occluded(release: LoadedRelease, by: By | None) -> tuple[By, list[str]]:
    """What is to be occluded, and the names of it.

    Raises:
        InvalidInput: the release's model does not take that.
    """
    names: Mapping[By, list[str]] = {
        "inputs": release.definition.input_names,
        "features": release.definition.feature_names,
    }
    chosen: By = by or ("inputs" if release.kind == "windows" else "features")
    if chosen == "inputs" and release.kind == "requests":
        raise InvalidInput(f"{release.ref.name} answers requests; explain them by features")
    if chosen == "features" and release.manifest.input != "features":
        raise InvalidInput(f"{release.ref.name} takes raw windows; explain them by inputs")
    return chosen, names[chosen]


def explained(
    release: LoadedRelease, by: By, names: Sequence[str], raw: Float32, features: Float32 | None
) -> Effects:
    """Explain rows of a release.

    Args:
        release: whose model answers.
        by: what is occluded.
        names: of what is occluded, from :func:`occluded`.
        raw: float32 [rows, samples, inputs].
        features: float32 [rows, features]; none where they are computed from ``raw``.

    Raises:
        InvalidInput: the rows do not fit the definition.
        Unavailable: the model fails.
    """
    channels = {channel.name: channel for channel in release.reference.channels}
    medians = np.array([median(channels[name]) for name in names], np.float32)

    def probabilities(raw: Float32, features: Float32) -> Float32:
        logits = release.logits(raw, features)
        if not np.isfinite(logits).all():
            raise Unavailable(f"{release.ref.name}: scores are not finite; nothing explains them")
        return outputs.probabilities(logits)

    def computed(raw: Float32) -> Float32:
        return release.evaluator.evaluate(release.evaluator.quantise(raw))

    if by == "inputs":
        return effects(lambda windows: probabilities(windows, computed(windows)), raw, medians)
    rows = computed(raw) if features is None else features
    return effects(lambda some: probabilities(_NO_WINDOWS, some), rows, medians)


def explanation(
    release: LoadedRelease, by: By, names: list[str], found: Effects, *, per_class: bool
) -> Explanation:
    """The effects in the words of a release."""
    predicted = found.probabilities.argmax(axis=1)
    rows = np.arange(len(predicted))
    return Explanation(
        model=release.ref.model,
        version=release.ref.version,
        digest=release.ref.digest,
        target=release.target,
        by=by,
        names=names,
        classes=list(release.classes),
        labels=[release.classes[place] for place in predicted.tolist()],
        confidences=found.probabilities[rows, predicted].tolist(),
        contributions=found.changes[rows, :, predicted].tolist(),
        per_class=found.changes.tolist() if per_class else [],
    )


_NO_WINDOWS = np.zeros((0, 0, 0), np.float32)
"""A model of features looks at no window."""
