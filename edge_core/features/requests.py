"""What a request and its event streams hold."""

from collections.abc import Collection
from typing import Annotated, Literal

import msgspec

from edge_core.features.record import Identifier, Record, check_range, duplicates_refused

MAX_TEXT = 64
"""Characters of a category; a longer one is refused."""
EVENT_BYTES = 20
"""What one kept event costs at most, its fields aside: two int64, and room for lists to grow."""
NUMBER_BYTES = 10
TEXT_BYTES = 136
"""A text of 64 Latin letters."""
ENTITY_BYTES = 1536
WINDOW_BYTES = 320
"""What an entity costs more for each window of another length or field."""
DISTINCT_BYTES = 112
"""What an event costs more for each window that tells its values apart."""
MOST_AHEAD_S = 400 * 86400

NullPolicy = Literal["refuse", "keep"]
"""Whether a missing value is an error, or goes on as missing."""


class Number(Record, frozen=True, kw_only=True, tag_field="dtype", tag="number"):
    """A number. Values are rounded to int32 multiples of ``lsb`` and clipped to the range."""

    name: Identifier
    unit: str
    lsb: Annotated[float, msgspec.Meta(gt=0)]
    low: float
    high: float
    null_policy: NullPolicy = "refuse"

    def __post_init__(self) -> None:
        check_range(f"field {self.name}", lsb=self.lsb, low=self.low, high=self.high)

    @property
    def largest(self) -> int:
        """Largest absolute value in multiples of ``lsb``."""
        return round(max(abs(self.low), abs(self.high)) / self.lsb)


class Category(Record, frozen=True, kw_only=True, tag_field="dtype", tag="category"):
    """A short text. Any value is taken; operations say what they do with an unknown one."""

    name: Identifier
    null_policy: NullPolicy = "refuse"


class Time(Record, frozen=True, kw_only=True, tag_field="dtype", tag="time"):
    """A moment, int64 microseconds since 1970 UTC."""

    name: Identifier
    null_policy: NullPolicy = "refuse"


FieldType = Number | Category | Time


class Request(Record, frozen=True, kw_only=True):
    """What an application sends to have one prediction."""

    fields: Annotated[list[FieldType], msgspec.Meta(min_length=1, max_length=64)]
    time: Identifier
    """The field that holds the prediction's time: windows end there."""

    def __post_init__(self) -> None:
        duplicates_refused("field", [field.name for field in self.fields])
        found = [field for field in self.fields if field.name == self.time]
        if not found or not isinstance(found[0], Time) or found[0].null_policy != "refuse":
            raise ValueError(f"request: time names no time field that refuses null: {self.time}")


class Keep(Record, frozen=True, kw_only=True):
    """How much of a stream is kept. Beyond it, the oldest goes and is counted.

    ``entities`` and ``events`` hold for each way in which features group the stream; the entity
    that was used least recently is dropped first, with all its events.
    """

    entities: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 4096
    events: Annotated[int, msgspec.Meta(ge=1, le=100_000_000)] = 65536
    events_per_entity: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 8192


class Stream(Record, frozen=True, kw_only=True):
    """Events about entities. Beside its fields each has an event time and a sequence number."""

    name: Identifier
    fields: Annotated[list[FieldType], msgspec.Meta(max_length=64)]
    keep: Keep = Keep()
    max_ahead_s: Annotated[float, msgspec.Meta(ge=0, le=MOST_AHEAD_S)] = 0.0
    """How far an event's time may lie after its arrival; further ones are dropped and counted."""

    def __post_init__(self) -> None:
        duplicates_refused("field", [field.name for field in self.fields])

    def memory_bytes(self, used: Collection[str], windows: int, distinct: int) -> int:
        """Most that one grouping of the stream's events can take.

        Args:
            used: fields that features are about.
            windows: different ones, by field and length.
            distinct: those that tell values apart.
        """
        event = EVENT_BYTES + sum(
            NUMBER_BYTES if isinstance(field, Number) else TEXT_BYTES
            for field in self.fields
            if field.name in used
        )
        entity = ENTITY_BYTES + windows * WINDOW_BYTES
        return self.keep.entities * entity + self.keep.events * (event + distinct * DISTINCT_BYTES)
