"""Operations over the events of one entity within a span of time before a prediction.

A prediction at time t sees the events that had arrived by t and whose event time lies in
[t - within, t): the current event is never in its own window. Order is (event time, sequence
number). ``x`` are the valid values of one field in multiples of its lsb.
"""

from typing import Annotated

import msgspec

from edge_core.features.record import Finite, Identifier, Record

LONGEST_S = 400 * 86400
"""A bit more than a year."""


class OverTime(Record, frozen=True, kw_only=True, tag_field="op"):
    """One model input from a stream's events that share the request's key."""

    name: Identifier
    stream: Identifier
    by: Annotated[dict[Identifier, Identifier], msgspec.Meta(max_length=4)] = msgspec.field(
        default_factory=dict
    )
    """Field of the stream -> field of the request that holds the same key; none: all events."""
    within_s: Annotated[float, msgspec.Meta(ge=1e-6, le=LONGEST_S)]
    output: bool = True
    """False for a step that only other features use."""
    default: Finite | None = None
    """Stands for a value that cannot be had."""

    @property
    def grouping(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """Stream and key; features that share them share a store of events."""
        return self.stream, tuple(self.by.items())

    @property
    def within_us(self) -> int:
        """The span in whole microseconds."""
        return round(self.within_s * 1_000_000)


class OfField(OverTime, frozen=True, kw_only=True):
    """An operation on one field's values."""

    field: Identifier
    min_count: Annotated[int, msgspec.Meta(ge=1)] = 1
    """With fewer valid values the feature cannot be had."""


class CountWithin(OverTime, frozen=True, kw_only=True, tag="count"):
    """Number of events; never missing."""


class SumWithin(OfField, frozen=True, kw_only=True, tag="sum"):
    """Sum of x."""


class MeanWithin(OfField, frozen=True, kw_only=True, tag="mean"):
    """Sum of x over their number."""


class LastWithin(OfField, frozen=True, kw_only=True, tag="last"):
    """Value of the newest event that has one."""


class DistinctWithin(OfField, frozen=True, kw_only=True, tag="distinct"):
    """Number of different values of the field."""


class TimeSince(OverTime, frozen=True, kw_only=True, tag="time_since"):
    """Seconds since the newest event."""


TimeOperation = CountWithin | SumWithin | MeanWithin | LastWithin | DistinctWithin | TimeSince
