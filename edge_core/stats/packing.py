"""Counts of many channels in few bytes, without loss.

Counts in quantile bins differ little from an even share of what is left of their channel's total.
So each channel says its total (or that it is the last channel's), which of its counts are not
zero, and for all of these but the last how far they are from that share, in Rice codes with the
channel's own parameter. The last one follows from the total. Counts with noise may be negative.

docs/telemetry.md shows the bits.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidMessage
from edge_core.stats import rice
from edge_core.stats.bits import BitReader, to_bytes
from edge_core.stats.histogram import LARGEST_COUNT

Int64 = npt.NDArray[np.int64]

GUARDS = 2
"""Counts after the bins (above and null); one is before them (below)."""
WIDTH_BITS = 6
FIRST_K = 5
ALL_BINS, IN_A_ROW, LISTED, NONE = "0", "10", "110", "111"
"""Which counts are not zero: every bin and no guard; neighbours, by how far the first and the last
are from that; those in a list of bits; none."""


def pack(counts: Int64, sizes: Sequence[int], usual: int) -> bytes:
    """Pack flat counts.

    Args:
        counts: int64 [sum of sizes], each within +-LARGEST_COUNT.
        sizes: number of counts of each channel.
        usual: a total that the first channel may share.

    Raises:
        ValueError: a count is out of range, or their number is not the sizes' sum.
    """
    if len(counts) != sum(sizes) or (len(counts) and np.abs(counts).max() > LARGEST_COUNT):
        raise ValueError(f"{len(counts)} counts do not fit {sum(sizes)}, or one is out of range")
    channels = np.split(counts, np.cumsum(sizes)[:-1]) if len(sizes) else []
    there = [np.flatnonzero(channel) for channel in channels]
    residuals = [_residuals(c[places]) for c, places in zip(channels, there, strict=True)]
    coded = [values for values in residuals if len(values)]
    flat = np.concatenate(coded) if coded else np.zeros(0, np.int64)
    parameters = iter(rice.best_parameters(flat, [len(values) for values in coded]))
    bits: list[str] = []
    total, k = usual, FIRST_K
    for channel, places, values in zip(channels, there, residuals, strict=True):
        own = int(channel.sum())
        bits += ["0"] if own == total else ["1", _wide(own)]
        bits.append(_support(channel, places))
        total = own
        if len(values):
            before, k = k, next(parameters)
            bits.append(rice.write(_fold(k - before), 0))
            bits += [rice.write(value, k) for value in values.tolist()]
    return to_bytes("".join(bits))


def unpack(data: bytes, sizes: Sequence[int], usual: int) -> Int64:
    """Unpack what :func:`pack` made with the same ``sizes`` and ``usual``, int64 [sum of sizes].

    Works through at most as many bits as there are, whatever they say.

    Raises:
        InvalidMessage: cut short, followed by other bits, or a count is out of range.
    """
    bits = BitReader(data)
    counts: list[int] = []
    total, k = usual, FIRST_K
    for size in sizes:
        if bits.take(1):
            total = rice.unfolded(bits.take(bits.take(WIDTH_BITS)))
        places = _places(bits, size)
        own = [0] * size
        if len(places) > 1:
            k += rice.unfolded(rice.read(bits, 0))
            if not 0 <= k <= rice.LARGEST_K:
                raise InvalidMessage(f"packed counts name the parameter {k}")
        left = total
        for position, place in enumerate(places[:-1]):
            more = len(places) - position
            value = _share(left, more) + rice.unfolded(rice.read(bits, k))
            own[place] = value
            left -= value
        if places:
            own[places[-1]] = left
        elif total:
            raise InvalidMessage(f"packed counts of nothing have the total {total}")
        if max(map(abs, own), default=0) > LARGEST_COUNT:
            raise InvalidMessage(f"a packed count is beyond {LARGEST_COUNT}")
        counts += own
    bits.finish()
    return np.array(counts, np.int64)


def _share(left: int, more: int) -> int:
    """An even share of what is left, rounded."""
    return (2 * left + more) // (2 * more)


def _residuals(values: Int64) -> Int64:
    """Folded distances of all but the last value from their shares."""
    if len(values) < 2:
        return values[:0]
    left = np.cumsum(values[::-1])[::-1]
    more = np.arange(len(values), 0, -1)
    return rice.folded(values - (2 * left + more) // (2 * more))[:-1]


def _fold(value: int) -> int:
    return 2 * value if value >= 0 else -2 * value - 1


def _wide(value: int) -> str:
    number = _fold(value)
    width = number.bit_length()
    return format(width, f"0{WIDTH_BITS}b") + (format(number, "b") if width else "")


def _support(channel: Int64, places: npt.NDArray[np.intp]) -> str:
    """The bits that say which counts are not zero."""
    if not len(places):
        return NONE
    first, last = int(places[0]), int(places[-1])
    if len(places) == last - first + 1:
        moved = first - 1, last - _last_bin(len(channel))
        if moved == (0, 0):
            return ALL_BINS
        ends = "".join(rice.write(_fold(end), 0) for end in moved)
        if len(ends) < len(channel):
            return IN_A_ROW + ends
    return LISTED + "".join("1" if count else "0" for count in channel.tolist())


def _places(bits: BitReader, size: int) -> list[int]:
    """Places of the counts that are not zero, rising."""
    if not bits.take(1):
        return list(range(1, _last_bin(size) + 1))
    if not bits.take(1):
        first = 1 + rice.unfolded(rice.read(bits, 0))
        last = _last_bin(size) + rice.unfolded(rice.read(bits, 0))
        if not 0 <= first <= last < size:
            raise InvalidMessage(f"packed counts {first} to {last} are not among {size}")
        return list(range(first, last + 1))
    if bits.take(1):
        return []
    listed = bits.take(size)
    return [place for place in range(size) if listed >> (size - 1 - place) & 1]


def _last_bin(size: int) -> int:
    return size - GUARDS - 1
