"""Computes the features of a sampled prediction again, from what the device computed them of."""

import numpy as np
import numpy.typing as npt

from edge_core import packed
from edge_core.errors import InvalidInput
from edge_core.features import logs
from edge_core.features.evaluation import Evaluator
from edge_core.features.redaction import Redaction
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.messages.telemetry import MAX_EVIDENCE_BYTES, Sample

Float32 = npt.NDArray[np.float32]


def computed(
    sample: Sample, evaluator: Evaluator | RequestEvaluator, redaction: Redaction
) -> Float32:
    """Features of a sample whose lengths were checked before.

    Returns:
        float32 [features]; those that depend on something redacted mean nothing.

    Raises:
        InvalidInput: the definition refuses what the sample holds.
    """
    if isinstance(evaluator, Evaluator):
        raw = window(sample, evaluator, redaction)
        return evaluator.evaluate(evaluator.quantise(raw)).reshape(-1)
    request = logs.unpack(sample.request).request
    listed = [column for column in request.values() if isinstance(column, list)]
    rows = max(map(len, listed), default=0)
    if rows != 1:  # before they are computed: inputs of many take gigabytes
        raise InvalidInput(f"it holds {rows} requests; a sample has one")
    memory = packed.unpack(sample.memory, MAX_EVIDENCE_BYTES)
    return evaluator.resumed(memory).ask(request).reshape(-1)


def window(sample: Sample, evaluator: Evaluator, redaction: Redaction) -> Float32:
    """The raw window, float32 [1, samples, inputs]; redacted inputs have some value in range."""
    shape = evaluator.definition.raw_shape
    raw = np.frombuffer(sample.window, "<f4").reshape(1, *shape).copy()
    for place in redaction.inputs:
        raw[:, :, place] = evaluator.definition.inputs[place].low
    return raw
