"""How much a model may cost, and whether it does.

Pure. A budget is for a calendar day, a calendar month (both UTC) or a thousand predictions of the
last seven days.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Literal

import msgspec

Span = Literal["day", "month", "thousand"]
EPOCH = date(1970, 1, 1)
DAY_MS = 86_400_000
RECENT_DAYS = 7
"""A price of a thousand is that of so many days: one quiet night is no news."""
LEAST_PREDICTIONS = 1000
"""Below this a price of a thousand says nothing."""
EARLY = 0.05
"""Share of a span before which nothing is expected of its rest."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A budget beside what was spent."""

    spent: float | None
    """None where nothing has a price, or too little was predicted."""
    expected: float | None
    """At the end of the span, if it goes on like this."""
    exceeded: bool


def day_of(at_ms: int) -> int:
    """The day that a moment lies in, from 1970-01-01 UTC."""
    return at_ms // DAY_MS


def first_day(span: Span, at_ms: int) -> int:
    """First day of what a budget is about."""
    today = day_of(at_ms)
    if span == "day":
        return today
    if span == "thousand":
        return today - RECENT_DAYS + 1
    return today - datetime.fromtimestamp(at_ms / 1000, UTC).day + 1


def judge(span: Span, amount: float, spent: float | None, at_ms: int) -> State:
    """Compare what was spent with what may be.

    Args:
        span: what the budget is for.
        amount: what may be spent.
        spent: since :func:`first_day`, or what a thousand predictions cost.
        at_ms: now.
    """
    over = spent is not None and spent > amount
    return State(spent=spent, expected=_expected(span, spent, at_ms), exceeded=over)


def _expected(span: Span, spent: float | None, at_ms: int) -> float | None:
    if spent is None or span == "thousand":
        return None
    begin = first_day(span, at_ms)
    end = begin + 1 if span == "day" else _after_month(begin)
    gone = (at_ms / DAY_MS - begin) / (end - begin)
    return spent / gone if gone >= EARLY else None


def _after_month(begin: int) -> int:
    later = EPOCH + timedelta(days=begin + 31)
    return (later.replace(day=1) - EPOCH).days
