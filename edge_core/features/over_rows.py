"""Operations on single values: fields of the request and other features.

Values are float64 with a mark where they are missing; what is computed from a missing value is
missing, and ``default`` stands for it. Only additions, multiplications, divisions and square roots
are used, which IEEE 754 rounds correctly everywhere; so bits do not depend on the processor.
"""

from typing import Annotated, Literal

import msgspec

from edge_core.features.record import Finite, Identifier, Record

MAX_BUCKETS = 1024
MAX_VALUES = 1024


class OverRows(Record, frozen=True, kw_only=True, tag_field="op"):
    """One model input, or several, from the values of one request."""

    name: Identifier
    output: bool = True
    """False for a step that only other features use."""
    default: Finite | None = None
    """Stands for a value that is missing."""


class OfOne(OverRows, frozen=True, kw_only=True):
    """An operation on one value."""

    input: Identifier
    """A field of the request, or another feature with one column."""


class Field(OfOne, frozen=True, kw_only=True, tag="field"):
    """The value as it is."""


class Missing(OfOne, frozen=True, kw_only=True, tag="missing"):
    """1 where the value is missing, else 0."""


class Scale(OfOne, frozen=True, kw_only=True, tag="scale"):
    """(x - offset) * factor."""

    offset: Finite = 0.0
    factor: Finite = 1.0


class Log1p(OfOne, frozen=True, kw_only=True, tag="log1p"):
    """Natural logarithm of 1 + x; missing where x <= -1."""


class Clip(OfOne, frozen=True, kw_only=True, tag="clip"):
    """X, at least low and at most high."""

    low: Finite
    high: Finite

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"feature {self.name}: low has to be below high")


class Ratio(OfOne, frozen=True, kw_only=True, tag="ratio"):
    """Input over ``over``; missing where ``over`` is zero."""

    over: Identifier


class Difference(OfOne, frozen=True, kw_only=True, tag="difference"):
    """Input minus ``minus``."""

    minus: Identifier


class Bucketise(OfOne, frozen=True, kw_only=True, tag="bucketise"):
    """Number of edges that are not above x: a code from 0 to the number of edges."""

    edges: Annotated[list[Finite], msgspec.Meta(min_length=1, max_length=MAX_BUCKETS)]

    def __post_init__(self) -> None:
        if any(not low < high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"feature {self.name}: edges have to rise")


class Join(OverRows, frozen=True, kw_only=True, tag="join"):
    """Texts put together with ``|`` between them: a text, for one-hot, hash and lookup."""

    inputs: Annotated[list[Identifier], msgspec.Meta(min_length=2, max_length=4)]
    output: Literal[False] = False  # a text is no model input


class OneHot(OfOne, frozen=True, kw_only=True, tag="one_hot"):
    """A column for each value, 1 where the text is that value, and a last one for all others."""

    values: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_VALUES)]

    def __post_init__(self) -> None:
        if len(set(self.values)) != len(self.values):
            raise ValueError(f"feature {self.name}: a value stands twice")


class OneHotCode(OfOne, frozen=True, kw_only=True, tag="one_hot_code"):
    """A column for each code from 0 to ``codes`` - 1, and a last one for all others."""

    codes: Annotated[int, msgspec.Meta(ge=1, le=MAX_BUCKETS)]


class Hash(OfOne, frozen=True, kw_only=True, tag="hash"):
    """Code of a text: its BLAKE2b digest of 8 bytes (RFC 7693), little-endian, modulo buckets."""

    buckets: Annotated[int, msgspec.Meta(ge=2, le=2**20)]


class Lookup(OfOne, frozen=True, kw_only=True, tag="lookup"):
    """The table's value for a text; missing where the table has none."""

    table: Identifier


class OfTime(OfOne, frozen=True, kw_only=True):
    """An operation on a moment, in the local time of a zone that the definition carries."""

    zone: str | None = None
    """UTC where none is named."""


class Cyclic(OfTime, frozen=True, kw_only=True, tag="cyclic"):
    """Sine and cosine of the phase in the local day, week (from Monday) or year."""

    period: Literal["day", "week", "year"]


class TimePart(OfTime, frozen=True, kw_only=True, tag="time_part"):
    """Code: hour 0 to 23, weekday 0 (Monday) to 6, month 0 to 11, or minute of the day."""

    part: Literal["hour", "weekday", "month", "minute_of_day"]


class Holiday(OfTime, frozen=True, kw_only=True, tag="holiday"):
    """1 where the local date is in the calendar, else 0."""

    calendar: Identifier


class DaysToHoliday(OfTime, frozen=True, kw_only=True, tag="days_to_holiday"):
    """Days from the local date to the nearest one in the calendar, negative after it.

    At most ``limit`` either way; of two equally near the coming one counts.
    """

    calendar: Identifier
    limit: Annotated[int, msgspec.Meta(ge=1, le=183)] = 14


class Registered(OverRows, frozen=True, kw_only=True, tag="registered"):
    """A pure function of numbers that is registered under a name and a version."""

    function: Identifier
    version: Annotated[int, msgspec.Meta(ge=1)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    """Of its source; a device whose function differs refuses the definition."""
    inputs: Annotated[list[Identifier], msgspec.Meta(min_length=1, max_length=16)]


RowOperation = (
    Field
    | Missing
    | Scale
    | Log1p
    | Clip
    | Ratio
    | Difference
    | Bucketise
    | Join
    | OneHot
    | OneHotCode
    | Hash
    | Lookup
    | Cyclic
    | TimePart
    | Holiday
    | DaysToHoliday
    | Registered
)
