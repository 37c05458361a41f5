"""What every part of a feature definition is: frozen, keyword-only, closed to unknown fields."""

from typing import Annotated

import msgspec

LARGEST_VALUE = 2.0**60
"""Bound of ranges and lsb in a channel's unit: a mean square of it fits float32."""
MAX_STEPS = 2**24
"""Multiples of lsb that a range may hold on either side of zero: they are exact in float32."""

LARGEST_FLOAT32 = 3.4028234663852886e38

Finite = Annotated[float, msgspec.Meta(ge=-LARGEST_FLOAT32, le=LARGEST_FLOAT32)]
"""A number that float32 holds; TOML can say nan and inf, which JSON cannot."""
Identifier = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,47}\Z")]


class Record(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A part of the definition."""


def check_range(what: str, *, lsb: float, low: float, high: float) -> None:
    """Raise ``ValueError`` where multiples of ``lsb`` cannot hold the range exactly."""
    if not low < high:
        raise ValueError(f"{what}: low has to be below high")
    if max(abs(low), abs(high), lsb) > LARGEST_VALUE:
        raise ValueError(f"{what}: the range or lsb exceeds 2**60; rescale the unit")
    if max(abs(low), abs(high)) / lsb >= MAX_STEPS:
        raise ValueError(f"{what}: the range needs more than 24 bits of lsb")


def duplicates_refused(what: str, names: list[str]) -> None:
    """Raise ``ValueError`` where a name stands twice."""
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"two {what}s have the same name: {', '.join(sorted(twice))}")
