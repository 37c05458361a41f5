"""One part of a sorted list, and where the next begins: by the values that the list is sorted by.

Entries that come and go between two parts are neither shown twice nor left out, and a late part
costs no more than the first.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

Place = Sequence[Any]
"""Values of an entry's keys, in their order."""


class Key(NamedTuple):
    """One value that a list is sorted by; together they name an entry."""

    column: sa.ColumnElement[Any]
    descending: bool = False


def part(
    query: sa.Select[Any], keys: Sequence[Key], after: Place | None, limit: int
) -> sa.Select[Any]:
    """The first entries of a list, or those that follow a place in it."""
    if after is not None:
        query = query.where(_follows(keys, after))
    ends = [key.column.desc() if key.descending else key.column for key in keys]
    return query.order_by(*ends).limit(limit)


def _follows(keys: Sequence[Key], after: Place) -> sa.ColumnElement[bool]:
    """Lexicographic order, each key in its direction."""
    found: list[sa.ColumnElement[bool]] = []
    for number, (key, value) in enumerate(zip(keys, after, strict=True)):
        same = [k.column == v for k, v in zip(keys[:number], after[:number], strict=True)]
        beyond = key.column < value if key.descending else key.column > value
        found.append(sa.and_(*same, beyond))
    return sa.or_(*found)
