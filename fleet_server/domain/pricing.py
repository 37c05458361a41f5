"""What predictions cost in money: amounts that devices counted, times prices that people set.

Pure. Each day is counted at the prices that held on it, so a new price leaves the past as it was.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence

import msgspec

MICROSECONDS = 1e6
MEGABYTE = 1e6
THOUSAND = 1000


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """What one of each costs, from a day on; none: not counted."""

    day: int
    """First day, counted from 1970-01-01 UTC."""
    device_second: float | None = None
    """A second of a device's processor."""
    megabyte: float | None = None
    """A million bytes of MQTT payload."""
    label: float | None = None
    currency: str = ""


class Amounts(msgspec.Struct, frozen=True, kw_only=True):
    """What was used on one day."""

    day: int
    predictions: int
    cpu_us: int
    """Processor time of answers, in microseconds."""
    shadow_cpu_us: int
    sent_bytes: int
    labels: int


class Money(msgspec.Struct, frozen=True, kw_only=True):
    """What it cost, by cause; a cause without a price adds nothing."""

    device: float
    shadow: float
    """Processor time of candidates that answered nobody."""
    traffic: float
    labels: float
    total: float


def at(day: int, prices: Sequence[Prices]) -> Prices | None:
    """The prices that hold on a day; none before the first were set.

    Args:
        day: from 1970-01-01 UTC.
        prices: by first day, ascending.
    """
    place = bisect_right(prices, day, key=lambda each: each.day)
    return prices[place - 1] if place else None


def money(used: Sequence[Amounts], prices: Sequence[Prices]) -> Money | None:
    """What all days cost together; none where no day has a price."""
    parts = [_of_day(each, price) for each in used if (price := at(each.day, prices)) is not None]
    if not parts:
        return None
    device, shadow, traffic, labels = (math.fsum(column) for column in zip(*parts, strict=True))
    total = math.fsum((device, shadow, traffic, labels))
    return Money(device=device, shadow=shadow, traffic=traffic, labels=labels, total=total)


def per_thousand(used: Sequence[Amounts], prices: Sequence[Prices]) -> Money | None:
    """What a thousand answers cost, over days that have prices; none where none were given."""
    priced = [each for each in used if at(each.day, prices) is not None]
    thousands = sum(each.predictions for each in priced) / THOUSAND
    spent = money(priced, prices)
    if spent is None or not thousands:
        return None
    return Money(
        **{name: value / thousands for name, value in msgspec.structs.asdict(spent).items()}
    )


def _of_day(used: Amounts, prices: Prices) -> tuple[float, float, float, float]:
    second = prices.device_second or 0.0
    return (
        used.cpu_us / MICROSECONDS * second,
        used.shadow_cpu_us / MICROSECONDS * second,
        used.sent_bytes / MEGABYTE * (prices.megabyte or 0.0),
        used.labels * (prices.label or 0.0),
    )
