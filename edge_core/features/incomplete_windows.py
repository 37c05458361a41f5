"""Features of windows in which samples are missing that their definition refuses.

The model never sees them. The baseline can: what is left of a channel gives its features, and a
feature of a channel that has no sample is NaN, which the baseline takes for its mean.
"""

from functools import cached_property

import msgspec
import numpy as np

from edge_core.features.evaluation import Bool, Evaluator, Float32, Int32
from edge_core.features.over_samples import Correlation, SampleOperation
from edge_core.features.reductions import MISSING
from edge_core.features.window_definition import WindowDefinition


class TolerantEvaluator(Evaluator):
    """Takes NaN in every channel. Whole windows get the features of the strict evaluator."""

    def __init__(self, strict: Evaluator, *, every: bool = False) -> None:
        """Compile.

        Args:
            strict: of the definition.
            every: whether a window is incomplete without a sample of a channel that may miss
                some, too: a model of raw windows has no value for it.
        """
        refusing = [entry.null_policy == "refuse" for entry in strict.definition.inputs]
        super().__init__(_relaxed(strict.definition))
        self._strict = strict
        self._needed = np.array(refusing) | every

    @cached_property
    def digest(self) -> str:
        """Of the strict definition: what streams remember is the same."""
        return self._strict.digest

    def incomplete(self, quantised: Int32) -> Bool:
        """Which windows lack a sample that the model needs.

        Args:
            quantised: int32 [batch, samples, inputs].

        Returns:
            bool [batch].
        """
        lacking: Bool = (quantised[:, :, self._needed] == MISSING).any(axis=(1, 2))
        return lacking

    def evaluate(self, quantised: Int32) -> Float32:
        """As the strict evaluator; of an incomplete window NaN where a channel has no sample."""
        if quantised.ndim != 3 or quantised.shape[2] != len(self._needed):
            return self._strict.evaluate(quantised)  # which says what is wrong
        lacking = self.incomplete(quantised)
        if not lacking.any():
            return self._strict.evaluate(quantised)
        features = super().evaluate(quantised)
        if not lacking.all():
            features[~lacking] = self._strict.evaluate(quantised[~lacking])
        return features


def _relaxed(definition: WindowDefinition) -> WindowDefinition:
    """The definition with every channel allowed to miss samples."""
    refusing = {entry.name for entry in definition.inputs if entry.null_policy == "refuse"}
    replace = msgspec.structs.replace
    return replace(
        definition,
        inputs=[
            replace(entry, null_policy="skip", min_valid=1) if entry.name in refusing else entry
            for entry in definition.inputs
        ],
        features=[
            replace(feature, default=float("nan")) if _channels(feature) & refusing else feature
            for feature in definition.features
        ],
    )


def _channels(feature: SampleOperation) -> set[str]:
    other = {feature.other} if isinstance(feature, Correlation) else set()
    return {feature.input} | other
