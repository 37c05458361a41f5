"""Channels of a sensor stream and the windows that they are cut into."""

from typing import Annotated, Literal

import msgspec

from edge_core.features.record import Identifier, Record, check_range

MAX_WINDOW_SAMPLES = 4096


class SensorInput(Record, frozen=True, kw_only=True):
    """One raw channel. Values are stored as int32 multiples of ``lsb``, clipped to the range."""

    name: Identifier
    unit: str
    lsb: Annotated[float, msgspec.Meta(gt=0)]
    low: float
    high: float
    dtype: Literal["float32"] = "float32"
    null_policy: Literal["refuse", "skip"] = "refuse"
    """NaN and infinity are refused with an error that names the channel, or NaN is a missing
    sample, which operations leave out."""
    min_valid: Annotated[int, msgspec.Meta(ge=1)] = 1
    """With fewer valid samples in a window, features of this channel are missing in it."""

    def __post_init__(self) -> None:
        check_range(f"input {self.name}", lsb=self.lsb, low=self.low, high=self.high)

    @property
    def largest(self) -> int:
        """Largest absolute value in multiples of ``lsb``."""
        return round(max(abs(self.low), abs(self.high)) / self.lsb)


class Window(Record, frozen=True, kw_only=True):
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
