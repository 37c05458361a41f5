"""The simple baseline that every bundle carries: it answers when the model cannot.

A multinomial logistic regression on some of the bundle's features, stored as readable JSON
and evaluated with numpy alone, so that no model runtime is needed to serve it.
"""

from itertools import chain
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidBundle, quoted

BASELINE_VERSION = 1
MAX_BASELINE_BYTES = 1024 * 1024

LARGEST = 1e30
"""Of its numbers and logits: float32 holds it, and float64 holds what is computed of it."""
SMALLEST_SCALE = 1e-30

Float32 = npt.NDArray[np.float32]


class LogisticBaseline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Logits = ((x[features] - mean) / scale) @ weights + bias.

    ``weights`` has one row per feature and one column per class.
    """

    v: int = BASELINE_VERSION
    features: Annotated[list[str], msgspec.Meta(min_length=1)]
    mean: list[float]
    scale: list[float]
    weights: list[list[float]]
    bias: list[float]

    def __post_init__(self) -> None:
        rows, columns = len(self.features), len(self.bias)
        if not len(self.mean) == len(self.scale) == len(self.weights) == rows:
            raise ValueError("mean, scale and weights need one entry per feature")
        if any(len(row) != columns for row in self.weights):
            raise ValueError("every row of weights needs one entry per class")
        numbers = np.abs([*self.mean, *self.scale, *self.bias, *chain(*self.weights)])
        if not (numbers <= LARGEST).all():  # NaN is not, either
            raise ValueError(
                f"mean, scale, weights and bias have to be finite, at most {LARGEST:g}"
            )
        if not all(value >= SMALLEST_SCALE for value in self.scale):
            raise ValueError(f"scale has to be positive, at least {SMALLEST_SCALE:g}")

    def logits(self, features: Float32, names: list[str]) -> Float32:
        """Float32 [batch, features] in the order of ``names`` -> float32 [batch, classes].

        A feature that is NaN, as where an input is missing, counts as its mean: it says nothing.
        """
        columns = [names.index(name) for name in self.features]
        chosen = features[:, columns].astype(np.float64)
        scaled = (chosen - np.array(self.mean)) / np.array(self.scale)
        scaled[np.isnan(scaled)] = 0.0
        logits = scaled @ np.array(self.weights) + np.array(self.bias)
        # Infinite logits would make no probabilities, and the baseline has to answer always.
        held: Float32 = np.clip(logits, -LARGEST, LARGEST).astype(np.float32)
        return held


class _Versioned(msgspec.Struct):
    v: int


def parse(data: bytes) -> LogisticBaseline:
    """Parse ``fallback.json``; raise :class:`InvalidBundle` where it is not valid."""
    if len(data) > MAX_BASELINE_BYTES:
        raise InvalidBundle(f"fallback has {len(data)} bytes; the limit is {MAX_BASELINE_BYTES}")
    try:
        version = msgspec.json.decode(data, type=_Versioned).v
        if version != BASELINE_VERSION:
            raise InvalidBundle(f"fallback has version {version}; known is {BASELINE_VERSION}")
        return msgspec.json.decode(data, type=LogisticBaseline)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidBundle(f"fallback is not valid: {quoted(error)}") from error


def serialize(baseline: LogisticBaseline) -> bytes:
    """Readable JSON bytes."""
    return msgspec.json.format(msgspec.json.encode(baseline), indent=1) + b"\n"
