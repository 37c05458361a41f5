"""Small plots as the page draws them: where each bar, dot and number lies, in pixels. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from fleet_server.console.wording import span

HEIGHT = 120
BAR = 34
"""From one bar of delays to the next."""
GAP = 4
MOST_BARS = 33
WIDTH = 180
"""Of an interval's axis."""


class Bar(NamedTuple):
    """Labels that came within one span of time."""

    x: int
    y: int
    height: int
    labels: int
    until: str
    """Upper end of the span."""
    share: float
    """Labels that have come until then, of all."""


class Delays(NamedTuple):
    """Delays of labels, from the quickest span to the slowest."""

    bars: list[Bar]
    width: int
    height: int


class Interval(NamedTuple):
    """An accuracy on an axis from ``start`` to 1."""

    low: int
    high: int
    at: int
    rest: int | None


def delays(bins: Mapping[str, int]) -> Delays:
    """Bars for counts by ``<seconds``, a power of two; spans in between without labels are kept."""
    counts = {int(name.removeprefix("<")).bit_length() - 1: count for name, count in bins.items()}
    if not counts:
        return Delays([], 0, HEIGHT)
    numbers = range(min(counts), max(counts) + 1)[:MOST_BARS]
    most, total, seen, bars = max(counts.values()), sum(counts.values()), 0, []
    for place, number in enumerate(numbers):
        count = counts.get(number, 0)
        seen += count
        height = max(1, round(HEIGHT * count / most)) if count else 0
        until = span(2**number, 2)
        bars.append(Bar(place * BAR, HEIGHT - height, height, count, until, seen / total))
    return Delays(bars, len(bars) * BAR, HEIGHT)


def start_of(lowest: float | None) -> float:
    """Where an axis of accuracies begins, so that the lowest of them lies on it."""
    return 0.0 if lowest is None else max(0.0, int(lowest * 10 - 1e-9) / 10)


def interval(
    low: float | None, high: float | None, at: float | None, rest: float | None, start: float
) -> Interval | None:
    """Places on an axis of :data:`WIDTH`; none where there is nothing to show."""
    if low is None or high is None or at is None:
        return None

    def place(value: float) -> int:
        return round(WIDTH * min(1.0, max(0.0, (value - start) / (1 - start))))

    return Interval(place(low), place(high), place(at), None if rest is None else place(rest))
