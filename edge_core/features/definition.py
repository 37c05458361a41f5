"""A feature definition: data that says how raw sensor samples become a model's inputs.

It is part of the signed bundle (``features.json``) and names operations, never code.
"""

from typing import Annotated, Literal

import msgspec

from edge_core.errors import InvalidBundle, quoted

DEFINITION_VERSION = 1
MAX_DEFINITION_BYTES = 256 * 1024
MAX_WINDOW_SAMPLES = 4096
LARGEST_VALUE = 2.0**60
"""Bound of ranges and lsb in a channel's unit: a mean square of it fits float32."""

Operation = Literal["mean", "std", "min", "max", "range", "energy", "zero_crossings"]
Identifier = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,47}\Z")]


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the definition."""


class SensorInput(_Record, frozen=True, kw_only=True):
    """One raw channel. Values are stored as int32 multiples of ``lsb``, clipped to the range."""

    name: Identifier
    unit: str
    lsb: Annotated[float, msgspec.Meta(gt=0)]
    low: float
    high: float
    dtype: Literal["float32"] = "float32"
    null_policy: Literal["refuse"] = "refuse"
    """NaN and infinity are refused with an error that names the channel."""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"input {self.name}: low has to be below high")
        if max(abs(self.low), abs(self.high), self.lsb) > LARGEST_VALUE:
            raise ValueError(f"input {self.name}: the range or lsb exceeds 2**60; rescale the unit")
        if max(abs(self.low), abs(self.high)) / self.lsb >= 2**24:
            raise ValueError(f"input {self.name}: the range needs more than 24 bits of lsb")

    @property
    def largest(self) -> int:
        """Largest absolute value in multiples of ``lsb``."""
        return round(max(abs(self.low), abs(self.high)) / self.lsb)


class Window(_Record, frozen=True, kw_only=True):
    """``samples`` consecutive samples; the next window starts ``hop`` samples later.

    A gap of more than ``max_gap_ms`` between two samples starts afresh, so that no window spans
    a hole in time.
    """

    samples: Annotated[int, msgspec.Meta(ge=2, le=MAX_WINDOW_SAMPLES)]
    hop: Annotated[int, msgspec.Meta(ge=1, le=MAX_WINDOW_SAMPLES)]
    max_gap_ms: Annotated[int, msgspec.Meta(ge=1)]
    rate_hz: Annotated[float, msgspec.Meta(gt=0)]

    def __post_init__(self) -> None:
        if self.hop > self.samples:
            raise ValueError("hop has to be at most samples, or samples between windows are lost")


class Feature(_Record, frozen=True, kw_only=True):
    """One model input: an operation over one channel's window.

    ``std`` is the population's (divided by the number of samples), ``energy`` the mean square,
    ``range`` maximum minus minimum; ``zero_crossings`` counts neighbours of which exactly one
    is below zero.
    """

    name: Identifier
    op: Operation
    input: Identifier


class FeatureDefinition(_Record, frozen=True, kw_only=True):
    """Inputs, window and features, in the order in which arrays hold them."""

    v: int = DEFINITION_VERSION
    inputs: Annotated[list[SensorInput], msgspec.Meta(min_length=1, max_length=64)]
    window: Window
    features: Annotated[list[Feature], msgspec.Meta(min_length=1, max_length=1024)]

    def __post_init__(self) -> None:
        for what, names in (
            ("input", [entry.name for entry in self.inputs]),
            ("feature", [entry.name for entry in self.features]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"two {what}s have the same name")
        known = {entry.name for entry in self.inputs}
        for feature in self.features:
            if feature.input not in known:
                raise ValueError(f"feature {feature.name}: unknown input {feature.input}")
        for entry in self.inputs:
            # samples * sum of squares is the largest integer the evaluator forms.
            if self.window.samples**2 * entry.largest**2 >= 2**63:
                raise ValueError(
                    f"input {entry.name}: {self.window.samples} samples of this range and lsb "
                    "overflow 64-bit sums; shorten the window or use a coarser lsb"
                )

    @property
    def input_names(self) -> list[str]:
        """Names of the raw channels."""
        return [entry.name for entry in self.inputs]

    @property
    def feature_names(self) -> list[str]:
        """Names of the features."""
        return [entry.name for entry in self.features]


class _Versioned(msgspec.Struct):
    v: int


def parse(data: bytes) -> FeatureDefinition:
    """Parse ``features.json``; raise :class:`InvalidBundle` where it is not valid."""
    if len(data) > MAX_DEFINITION_BYTES:
        raise InvalidBundle(
            f"feature definition has {len(data)} bytes; the limit is {MAX_DEFINITION_BYTES}"
        )
    try:
        version = msgspec.json.decode(data, type=_Versioned).v
        if version != DEFINITION_VERSION:
            raise InvalidBundle(
                f"feature definition has version {version}; known is {DEFINITION_VERSION}"
            )
        return msgspec.json.decode(data, type=FeatureDefinition)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidBundle(f"feature definition is not valid: {quoted(error)}") from error


def serialize(definition: FeatureDefinition) -> bytes:
    """Canonical readable JSON bytes."""
    return msgspec.json.format(msgspec.json.encode(definition), indent=2) + b"\n"
