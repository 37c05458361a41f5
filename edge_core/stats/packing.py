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
STEPS = range(-20, 7)
"""What may be added to the bits of a share."""
FIRST_STEP = -1
ALL_BINS, IN_A_ROW, WITH_HOLES, LISTED, NONE = "0", "10", "110", "1110", "1111"
"""Which counts are not zero: every bin and no guard; neighbours, by how far the first and the last
are from that; the same with a bit for each count between them; those in a list of bits; none."""


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
    bits: list[str] = []
    total, step = usual, FIRST_STEP
    for channel in channels:
        own = int(channel.sum())
        places = np.flatnonzero(channel)
        bits += ["0"] if own == total else ["1", _wide(own)]
        bits.append(_support(channel, places))
        total = own
        if len(places) > 1:
            values, shares = _residuals(channel[places])
            widths = [share.bit_length() for share in map(abs, shares.tolist())]
            before, step = step, _best_step(values, np.array(widths), step)
            bits.append(rice.write(_fold(step - before), 0))
            bits += [
                rice.write(value, _parameter(width, step))
                for value, width in zip(values.tolist(), widths, strict=True)
            ]
    return to_bytes("".join(bits))


def unpack(data: bytes, sizes: Sequence[int], usual: int) -> Int64:
    """Unpack what :func:`pack` made with the same ``sizes`` and ``usual``, int64 [sum of sizes].

    Works through at most as many bits as there are, whatever they say.

    Raises:
        InvalidMessage: cut short, followed by other bits, or a count is out of range.
    """
    bits = BitReader(data)
    counts: list[int] = []
    total, step = usual, FIRST_STEP
    for size in sizes:
        if bits.take(1):
            total = rice.unfolded(bits.take(bits.take(WIDTH_BITS)))
        places = _places(bits, size)
        own = [0] * size
        if len(places) > 1:
            step += rice.unfolded(rice.read(bits, 0))
            if step not in STEPS:
                raise InvalidMessage(f"packed counts name the step {step}")
        left = total
        for position, place in enumerate(places[:-1]):
            more = len(places) - position
            share = _share(left, more)
            k = _parameter(abs(share).bit_length(), step)
            value = share + rice.unfolded(rice.read(bits, k))
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


def _parameter(width: int, step: int) -> int:
    """Of a Rice code, by the number of bits of the share."""
    return min(max(width + step, 0), rice.LARGEST_K)


def _residuals(values: Int64) -> tuple[Int64, Int64]:
    """Folded distances of all but the last value from their shares, and the shares."""
    left = np.cumsum(values[::-1])[::-1]
    more = np.arange(len(values), 0, -1)
    shares = (2 * left + more) // (2 * more)
    return rice.folded(values - shares)[:-1], shares[:-1]


def _best_step(values: Int64, widths: Int64, before: int) -> int:
    """The step that makes a channel shortest, its own bits included."""
    steps = np.array(STEPS)
    parameters = np.clip(widths[:, None] + steps, 0, rice.LARGEST_K)
    told = rice.folded(steps - before) + 1
    return int(steps[(rice.lengths(values[:, None], parameters).sum(axis=0) + told).argmin()])


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
    moved = first - 1, last - _last_bin(len(channel))
    if moved == (0, 0) and len(places) == last:
        return ALL_BINS
    k = _end_parameter(len(channel))
    ends = "".join(rice.write(_fold(end), k) for end in moved)
    if len(places) == last - first + 1:
        near = IN_A_ROW + ends
    else:
        near = WITH_HOLES + ends + _flags(channel[first + 1 : last])
    listed = LISTED + _flags(channel)
    return min(near, listed, key=len)


def _flags(counts: Int64) -> str:
    return "".join("1" if count else "0" for count in counts.tolist())


def _places(bits: BitReader, size: int) -> list[int]:
    """Places of the counts that are not zero, rising."""
    kind = bits.unary(len(NONE))
    if kind == len(NONE):
        return []
    if kind == 0:
        return list(range(1, _last_bin(size) + 1))
    if kind == len(LISTED) - 1:
        return _flagged(bits, 0, size)
    k = _end_parameter(size)
    first = 1 + rice.unfolded(rice.read(bits, k))
    last = _last_bin(size) + rice.unfolded(rice.read(bits, k))
    if not 0 <= first <= last < size:
        raise InvalidMessage(f"packed counts {first} to {last} are not among {size}")
    if kind == len(IN_A_ROW) - 1 or first == last:
        return list(range(first, last + 1))
    return [first, *_flagged(bits, first + 1, last), last]


def _flagged(bits: BitReader, start: int, stop: int) -> list[int]:
    return [place for place in range(start, stop) if bits.take(1)]


def _end_parameter(size: int) -> int:
    """Channels with many bins, such as latency, often use a few of them far from both ends."""
    return max(0, 2 * (size.bit_length() - 4))


def _last_bin(size: int) -> int:
    return size - GUARDS - 1
