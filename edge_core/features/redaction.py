"""Which features tell something of inputs that may not leave the device."""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from edge_core.bundle.manifest import Manifest, Privacy
from edge_core.errors import InvalidBundle
from edge_core.features import graph, over_samples
from edge_core.features.definition import FeatureDefinition
from edge_core.features.over_samples import Correlation
from edge_core.features.over_time import OfField, OverTime
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.window_definition import WindowDefinition

Float32 = npt.NDArray[np.float32]


def names(definition: FeatureDefinition) -> list[str]:
    """What can be redacted: inputs of windows; fields of requests, and ``stream.field``."""
    if isinstance(definition, WindowDefinition):
        return definition.input_names
    streams = [f"{s.name}.{field.name}" for s in definition.streams for field in s.fields]
    return [*definition.field_names, *streams]


def problem(definition: FeatureDefinition, privacy: Privacy | None) -> str:
    """What is redacted that the features do not have; empty where all is there."""
    known = names(definition)
    unknown = [name for name in (privacy.redacted if privacy else []) if name not in known]
    if not unknown:
        return ""
    return f"privacy redacts {', '.join(unknown)}; the features are of {', '.join(known)}"


def hidden(definition: FeatureDefinition, redacted: Collection[str]) -> list[int]:
    """Places of the model's inputs that depend on something redacted, rising."""
    if isinstance(definition, WindowDefinition):
        found = _of_windows(definition, redacted)
    else:
        found = _of_requests(definition, redacted)
    return [place for place, name in enumerate(definition.feature_names) if name in found]


class Redaction:
    """What samples of a release leave out. With nothing redacted, everything stays as it is."""

    def __init__(self, definition: FeatureDefinition, redacted: Collection[str]) -> None:
        self.redacted = frozenset(redacted)
        self.hidden = hidden(definition, redacted)
        """Places of features."""
        self.inputs = [
            place for place, name in enumerate(definition.input_names) if name in self.redacted
        ]
        """Places of raw channels."""
        self.keeps_requests = not self.redacted
        """Whether a request and what it could see may be sent: they are never sent in part."""

    def window(self, samples: Float32) -> Float32:
        """Raw samples float32 [samples, inputs] without the redacted channels' values."""
        return _without(samples, self.inputs)

    def features(self, values: Float32) -> Float32:
        """Features float32 [features] without those that depend on something redacted."""
        return _without(values, self.hidden)

    def is_kept(self, samples: Float32, values: Float32) -> bool:
        """Whether a sample really leaves these out."""
        there = samples[:, self.inputs], values[self.hidden]
        return all(bool(np.isnan(part).all()) for part in there)


def of(definition: FeatureDefinition, manifest: Manifest) -> Redaction:
    """As the manifest asks; raise :class:`InvalidBundle` where it names what is not there."""
    if found := problem(definition, manifest.privacy):
        raise InvalidBundle(f"{manifest.model}@{manifest.version}: {found}")
    return Redaction(definition, manifest.privacy.redacted if manifest.privacy else ())


def _without(values: Float32, places: list[int]) -> Float32:
    if not places:
        return values
    left = values.copy()
    left[..., places] = np.nan
    return left


def _of_windows(definition: WindowDefinition, redacted: Collection[str]) -> set[str]:
    found: set[str] = set()
    for feature in definition.features:
        channels = {feature.input}
        if isinstance(feature, Correlation):
            channels.add(feature.other)
        if not channels.isdisjoint(redacted):
            found |= set(over_samples.columns(feature, definition.window.samples))
    return found


def _of_requests(definition: RequestDefinition, redacted: Collection[str]) -> set[str]:
    touched = set(redacted)
    columns: set[str] = set()
    for feature in graph.ordered(definition.features, definition.field_names):
        needed = set(graph.needs(feature))
        if isinstance(feature, OverTime):
            needed |= {definition.request.time, *feature.by.values()}
            needed |= {f"{feature.stream}.{name}" for name in feature.by}
        if isinstance(feature, OfField):
            needed.add(f"{feature.stream}.{feature.field}")
        if not needed.isdisjoint(touched):
            touched.add(feature.name)
            columns |= set(graph.columns(feature))
    return columns
