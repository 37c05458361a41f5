"""A definition of features of sensor windows: channels, the window, and what is computed of it."""

from typing import Annotated, Literal

import msgspec

from edge_core.features.over_samples import BandEnergy, Correlation, SampleOperation, columns
from edge_core.features.record import Record, duplicates_refused
from edge_core.features.sensors import SensorInput, Window

MAX_COLUMNS = 16384


class WindowDefinition(Record, frozen=True, kw_only=True, omit_defaults=False):
    """Inputs, window and features, in the order in which arrays hold them."""

    v: Literal[1, 2] = 2
    """Version 1 had seven operations and no missing samples; it reads as it did."""
    inputs: Annotated[list[SensorInput], msgspec.Meta(min_length=1, max_length=64)]
    window: Window
    features: Annotated[list[SampleOperation], msgspec.Meta(min_length=1, max_length=1024)]

    def __post_init__(self) -> None:
        duplicates_refused("input", self.input_names)
        duplicates_refused("feature", [feature.name for feature in self.features])
        duplicates_refused("column", self.feature_names)
        if len(self.feature_names) > MAX_COLUMNS:
            raise ValueError(
                f"the features have {len(self.feature_names)} columns; {MAX_COLUMNS} are allowed"
            )
        known = {entry.name: entry for entry in self.inputs}
        for feature in self.features:
            for name in _channels(feature):
                if name not in known:
                    raise ValueError(f"feature {feature.name}: unknown input {name}")
                if known[name].null_policy == "skip" and feature.default is None:
                    raise ValueError(
                        f"feature {feature.name}: samples of {name} may be missing; "
                        "give it a default"
                    )
            if isinstance(feature, BandEnergy):
                feature.bins(rate_hz=self.window.rate_hz, samples=self.window.samples)
        for entry in self.inputs:
            self._check_input(entry)

    def _check_input(self, entry: SensorInput) -> None:
        # samples * sum of squares is the largest integer the evaluator forms.
        if self.window.samples**2 * entry.largest**2 >= 2**63:
            raise ValueError(
                f"input {entry.name}: {self.window.samples} samples of this range and lsb "
                "overflow 64-bit sums; shorten the window or use a coarser lsb"
            )
        if entry.min_valid > self.window.samples:
            raise ValueError(
                f"input {entry.name}: min_valid exceeds the {self.window.samples} samples "
                "of a window"
            )

    @property
    def input_names(self) -> list[str]:
        """Names of the raw channels."""
        return [entry.name for entry in self.inputs]

    @property
    def raw_shape(self) -> tuple[int, int]:
        """Samples and channels of the raw values that one row of features is made from."""
        return self.window.samples, len(self.inputs)

    @property
    def feature_names(self) -> list[str]:
        """Names of the model's inputs, in order: a feature may have several."""
        return [name for feature in self.features for name in columns(feature, self.window.samples)]


def _channels(feature: SampleOperation) -> list[str]:
    if isinstance(feature, Correlation):
        return [feature.input, feature.other]
    return [feature.input]
