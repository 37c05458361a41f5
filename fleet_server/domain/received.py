"""Which sequence numbers of one outbox have arrived: a few ranges instead of a row for each.

A number is *seen* when it lies in a range, and only then. Numbers that arrived always lie in one,
so nothing is counted twice, whatever is sent again, in whatever order. The number of ranges is
bounded: where there would be more, the two lowest become one, and what was missing between them is
given up: should it still come, it is taken for seen, and stays counted as lost.
"""

import bisect
import struct
from collections.abc import Iterable
from typing import Self

MOST_RANGES = 1024
"""16 KiB. A device sends in order, so gaps are windows that were lost, or that another worker of a
shared subscription still holds: with two workers, every other one."""


class Received:
    """Sorted, disjoint, not adjoining ranges [first, last] of sequence numbers."""

    __slots__ = ("_firsts", "_lasts", "_most")

    def __init__(self, ranges: Iterable[tuple[int, int]] = (), *, most: int = MOST_RANGES) -> None:
        pairs = list(ranges)
        self._most = most
        self._firsts = [first for first, _ in pairs]
        self._lasts = [last for _, last in pairs]

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read what :meth:`pack` wrote."""
        values = struct.unpack(f"<{len(data) // 8}q", data)
        return cls(zip(values[::2], values[1::2], strict=True))

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Self:
        """Ranges of numbers in ascending order."""
        found = cls()
        for number in numbers:
            found.add(number)
        return found

    def pack(self) -> bytes:
        """Two little-endian int64 for each range."""
        values = [value for pair in self.ranges for value in pair]
        return struct.pack(f"<{len(values)}q", *values)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """Every range, lowest first."""
        return list(zip(self._firsts, self._lasts, strict=True))

    def __contains__(self, number: int) -> bool:
        at = bisect.bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]

    def add(self, number: int) -> bool:
        """Take a number in; False where it was seen before."""
        if number in self:
            return False
        at = bisect.bisect_right(self._firsts, number)
        follows = at > 0 and self._lasts[at - 1] == number - 1
        leads = at < len(self._firsts) and self._firsts[at] == number + 1
        if follows and leads:
            self._lasts[at - 1] = self._lasts[at]
            del self._firsts[at], self._lasts[at]
        elif follows:
            self._lasts[at - 1] = number
        elif leads:
            self._firsts[at] = number
        else:
            self._firsts.insert(at, number)
            self._lasts.insert(at, number)
            if len(self._firsts) > self._most:
                del self._firsts[1], self._lasts[0]
        return True
