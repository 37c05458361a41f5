"""Tables that a definition carries, so that no device's own copy can differ from training's."""

import datetime
from typing import Annotated

import msgspec

from edge_core.features.record import Finite, Identifier, Record

MAX_TRANSITIONS = 512
MAX_DATES = 4096
MAX_ENTRIES = 65536

ALWAYS_S = -(2**42) + 1

Seconds = Annotated[int, msgspec.Meta(gt=-(2**42), lt=2**42)]
"""Since 1970 UTC; microseconds of it stay below 2^62."""


class Zone(Record, frozen=True, kw_only=True):
    """A time zone: its offset from UTC, and every moment at which that changes."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    """As in the IANA time zone database, such as ``America/New_York``."""
    first_offset_s: int
    """Before the first transition."""
    transitions: Annotated[
        tuple[tuple[Seconds, int], ...], msgspec.Meta(max_length=MAX_TRANSITIONS)
    ] = ()
    """Seconds since 1970 UTC and the offset from then on, rising."""
    from_s: Seconds = ALWAYS_S
    """Seconds since 1970 UTC from which on the table is known; earlier moments are refused."""
    until_s: Seconds
    """Seconds since 1970 UTC up to which the table is known; later moments are refused."""

    def __post_init__(self) -> None:
        moments = [moment for moment, _ in self.transitions]
        if moments != sorted(set(moments)):
            raise ValueError(f"zone {self.name}: transitions have to rise")
        offsets = [self.first_offset_s, *(offset for _, offset in self.transitions)]
        if not self.from_s < self.until_s:
            raise ValueError(f"zone {self.name}: from_s has to be below until_s")
        if any(abs(offset) > 86400 for offset in offsets):
            raise ValueError(f"zone {self.name}: an offset exceeds a day")


class Calendar(Record, frozen=True, kw_only=True):
    """Dates of one kind, such as public holidays."""

    name: Identifier
    dates: Annotated[list[datetime.date], msgspec.Meta(min_length=1, max_length=MAX_DATES)]

    def __post_init__(self) -> None:
        if self.dates != sorted(set(self.dates)):
            raise ValueError(f"calendar {self.name}: dates have to rise")


class Table(Record, frozen=True, kw_only=True):
    """A number for each text."""

    name: Identifier
    values: Annotated[dict[str, Finite], msgspec.Meta(min_length=1, max_length=MAX_ENTRIES)]
