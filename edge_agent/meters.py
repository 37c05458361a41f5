"""What answering costs the device: readings at the end of each window, shared out by rows."""

import itertools
import time
from collections.abc import Callable, Sequence

import msgspec


class Meters(msgspec.Struct, frozen=True, kw_only=True):
    """Where readings come from; all of them only rise."""

    cpu_seconds: Callable[[], float] = time.process_time
    """Of this process, all threads."""
    monotonic: Callable[[], float] = time.monotonic
    sent_bytes: Callable[[], int] = lambda: 0
    """MQTT payloads so far."""


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """Used between two readings."""

    cpu_us: int
    sent_bytes: int
    span_ms: int


class Readings:
    """Remembers the last reading of every meter."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._last = self._read()

    def take(self) -> Spent:
        """What was used since the last call."""
        before, self._last = self._last, self._read()
        cpu, sent, at = (max(0, now - then) for now, then in zip(self._last, before, strict=True))
        return Spent(cpu_us=round(cpu * 1e6), sent_bytes=round(sent), span_ms=round(at * 1e3))

    def _read(self) -> tuple[float, int, float]:
        meters = self._meters
        return meters.cpu_seconds(), meters.sent_bytes(), meters.monotonic()


def shared(amount: int, weights: Sequence[int]) -> list[int]:
    """Split a whole amount by weights into whole parts that add up to it.

    With no weight at all, the first gets everything.
    """
    total = sum(weights)
    if not total:
        return [amount, *[0] * (len(weights) - 1)] if weights else []
    edges, reached = [0], 0
    for weight in weights:
        reached += weight
        edges.append(amount * reached // total)
    return [after - before for before, after in itertools.pairwise(edges)]
