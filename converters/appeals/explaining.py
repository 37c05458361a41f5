"""Why a sampled prediction was answered as it was: its release answers again, piece by piece."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from converters import incumbent
from converters.data.dataset import Float32
from edge_core import baseline as baselines
from edge_core import occlusion, outputs
from edge_core.bundle import folder as folders
from edge_core.bundle import manifest as manifests
from edge_core.bundle.manifest import Manifest, VariantRecord
from edge_core.errors import InvalidInput
from edge_core.features import definition as definitions
from edge_core.features import redaction as redactions
from edge_core.features import sampled
from edge_core.features.evaluation import Evaluator
from edge_core.features.redaction import Redaction
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.window_definition import WindowDefinition
from edge_core.messages.telemetry import Sample
from edge_core.stats import histogram

METHOD = "occlusion by medians"


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """As the fleet server keeps it."""

    method: str
    contributions: Mapping[str, float]
    """Input or feature -> by how much the answered class's probability is higher for it."""
    note: str


class _Asked(NamedTuple):
    """A sampled prediction and its release."""

    folder: Path
    manifest: Manifest
    sample: Sample
    evaluator: Evaluator | RequestEvaluator
    redaction: Redaction

    @property
    def names(self) -> list[str]:
        """Of the features."""
        return self.evaluator.definition.feature_names


class _Occluded(NamedTuple):
    """What can be left out of the sample, and who answers without it."""

    names: Sequence[str]
    rows: Float32
    """float32 [1, ..., names]."""
    logits: Callable[[Float32], Float32]
    by: str


def explain(folder: Path, sample: Sample, claimed: str | None) -> Explanation:
    """Explain a prediction by the bundle that gave it.

    Args:
        folder: the bundle's, checked before.
        sample: as the device sent it.
        claimed: the class that somebody says is right.

    Raises:
        InvalidInput: the sample is not one of this release, or the release refuses what it holds.
    """
    asked = _asked(folder, sample)
    classes = asked.manifest.output.classes
    scores = _floats(sample.scores, len(classes), "scores")
    answered = int(scores.argmax())
    said = f"answered {classes[answered]} ({scores[answered]:.0%})"
    found = _occluded(asked)
    if isinstance(found, str):
        return Explanation(method="none", contributions={}, note=f"{said}; {found}")
    reference = histogram.parse(
        folders.read_limited(folder / manifests.REFERENCE, histogram.MAX_REFERENCE_BYTES)
    )
    effects = occlusion.effects(
        lambda rows: outputs.probabilities(found.logits(rows)),
        found.rows,
        occlusion.medians(reference.channels, found.names),
    )
    hidden = {asked.names[place] for place in asked.redaction.hidden}
    changes = dict(zip(found.names, effects.changes[0, :, answered].tolist(), strict=True))
    return Explanation(
        method=f"{METHOD}, {found.by}",
        contributions={name: round(by, 6) for name, by in changes.items() if name not in hidden},
        note="; ".join([said, *_remarks(asked, effects.probabilities[0], answered, claimed)]),
    )


def _asked(folder: Path, sample: Sample) -> _Asked:
    ref = folders.ref(folder)
    if sample.release != ref:
        raise InvalidInput(f"the sample is of {sample.release.name}, not of {ref.name}")
    manifest = folders.read(folder)
    definition = definitions.parse(
        folders.read_limited(folder / manifests.FEATURES, definitions.MAX_DEFINITION_BYTES)
    )
    evaluator = (
        Evaluator(definition)
        if isinstance(definition, WindowDefinition)
        else RequestEvaluator(definition)
    )
    redaction = redactions.of(definition, manifest)
    return _Asked(folder, manifest, sample, evaluator, redaction)


def _occluded(asked: _Asked) -> _Occluded | str:
    """What to leave out; why nothing can be, where that is so."""
    if asked.sample.arm == "fallback":
        baseline = baselines.parse(
            folders.read_limited(asked.folder / manifests.FALLBACK, baselines.MAX_BASELINE_BYTES)
        )
        return _by_features(
            asked, lambda rows: baseline.logits(rows, asked.names), "features, the fallback's"
        )
    variant = _variant(asked)
    if variant is None:
        return f"nothing here runs the model for {asked.sample.target}, or another of its variants"
    if isinstance(asked.evaluator, Evaluator) and not asked.redaction.inputs:
        return _by_inputs(asked, asked.evaluator, variant)
    if asked.manifest.input == "features":
        return _by_features(asked, _model(asked, variant), f"features, {variant.target}")
    return "inputs that the model needs are redacted"


def _variant(asked: _Asked) -> VariantRecord | None:
    """The variant that answered; another one where that runs on other hardware only."""
    here = [variant for variant in asked.manifest.variants if variant.runtime in incumbent.HOST]
    own = [variant for variant in here if variant.target == asked.sample.target]
    return next(iter([*own, *here]), None)


def _by_inputs(asked: _Asked, evaluator: Evaluator, variant: VariantRecord) -> _Occluded:
    shape = evaluator.definition.raw_shape
    _floats(asked.sample.window, int(np.prod(shape)), "window")
    window = sampled.window(asked.sample, evaluator, asked.redaction)
    model = _model(asked, variant)

    def logits(windows: Float32) -> Float32:
        if asked.manifest.input == "features":
            return model(evaluator.evaluate(evaluator.quantise(windows)))
        return model(evaluator.rounded(windows))

    names = evaluator.definition.input_names
    return _Occluded(names, window, logits, f"inputs, {variant.target}")


def _by_features(asked: _Asked, logits: Callable[[Float32], Float32], by: str) -> _Occluded:
    """Features as the device computed them; hidden ones say nothing, so they are not known."""
    features = _floats(asked.sample.features, len(asked.names), "features")[None]
    hidden = asked.redaction.hidden
    if hidden:
        features = features.copy()
        reference = histogram.parse(
            folders.read_limited(asked.folder / manifests.REFERENCE, histogram.MAX_REFERENCE_BYTES)
        )
        features[0, hidden] = occlusion.medians(
            reference.channels, [asked.names[place] for place in hidden]
        )
    return _Occluded(asked.names, features, logits, by)


def _model(asked: _Asked, variant: VariantRecord) -> Callable[[Float32], Float32]:
    def answered(rows: Float32) -> Float32:
        found = incumbent.run(asked.folder, asked.manifest, variant, rows)
        return found[asked.manifest.output.name]

    return answered


def _remarks(
    asked: _Asked, probabilities: Float32, answered: int, claimed: str | None
) -> list[str]:
    classes = asked.manifest.output.classes
    again = int(probabilities.argmax())
    said = [f"computed again: {classes[again]} ({probabilities[again]:.0%})"]
    if again != answered:
        said.append("the device answered otherwise than its release does here")
    if claimed in classes:
        said.append(f"{claimed}, which is claimed, has {probabilities[classes.index(claimed)]:.0%}")
    if asked.redaction.redacted:
        said.append(f"redacted: {', '.join(sorted(asked.redaction.redacted))}")
    return said


def _floats(data: bytes, count: int, what: str) -> Float32:
    if len(data) != 4 * count:
        raise InvalidInput(f"its {what} have {len(data)} bytes; the release has {4 * count}")
    values = np.frombuffer(data, "<f4")
    return values.astype(np.float32)
