"""Explains rows of a release by occlusion, in the words of the release."""

from collections.abc import Mapping, Sequence

import numpy as np

from edge_agent.inference.session import Float32
from edge_agent.serving.explanation import By, Explanation
from edge_agent.serving.release import LoadedRelease
from edge_core import occlusion, outputs
from edge_core.errors import InvalidInput, Unavailable
from edge_core.occlusion import Effects


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
    medians = occlusion.medians(release.reference.channels, names)

    def probabilities(raw: Float32, features: Float32) -> Float32:
        logits = release.logits(raw, features)
        if not np.isfinite(logits).all():
            raise Unavailable(f"{release.ref.name}: scores are not finite; nothing explains them")
        return outputs.probabilities(logits)

    def computed(raw: Float32) -> Float32:
        return release.evaluator.evaluate(release.evaluator.quantise(raw))

    if by == "inputs":
        return occlusion.effects(
            lambda windows: probabilities(windows, computed(windows)), raw, medians
        )
    rows = computed(raw) if features is None else features
    return occlusion.effects(lambda some: probabilities(_NO_WINDOWS, some), rows, medians)


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
