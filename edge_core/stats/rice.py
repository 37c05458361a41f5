"""Rice codes: whole numbers in as many bits as their usual size asks for.

A number is a quotient in unary and ``k`` bits of remainder, which is the shortest code there is
for numbers that fall off geometrically when 2**k is near their mean. Sources: Golomb, "Run-length
encodings", IEEE Trans. Inf. Theory 12 (1966); Rice and Plaunt, "Adaptive variable-length coding for
efficient compression of spacecraft television data", IEEE Trans. Commun. Technol. 19 (1971).
"""

import numpy as np
import numpy.typing as npt

from edge_core.stats.bits import BitReader

Int64 = npt.NDArray[np.int64]

MOST_ONES = 24
"""A quotient from here on is this many ones, and the whole number in :data:`WIDEST` bits."""
WIDEST = 44
LARGEST_K = 42


def folded(values: Int64) -> Int64:
    """Signed -> unsigned: 0, -1, 1, -2, ... become 0, 1, 2, 3, ..."""
    return np.where(values < 0, -2 * values - 1, 2 * values)


def unfolded(value: int) -> int:
    """One number of :func:`folded` -> signed."""
    return -(value + 1) // 2 if value & 1 else value // 2


def lengths(values: Int64, parameters: Int64) -> Int64:
    """Bits that :func:`write` would make of unsigned numbers; the two arrays broadcast."""
    quotients = values >> parameters
    return np.where(quotients < MOST_ONES, quotients + 1 + parameters, MOST_ONES + WIDEST)


def write(value: int, k: int) -> str:
    """The bits of one unsigned number below 2**WIDEST."""
    quotient = value >> k
    if quotient >= MOST_ONES:
        return "1" * MOST_ONES + format(value, f"0{WIDEST}b")
    return "1" * quotient + format(value & ((1 << k) - 1), f"0{k + 1}b")


def read(bits: BitReader, k: int) -> int:
    """One number that :func:`write` wrote; raise ``InvalidMessage`` where the bits end."""
    return bits.after_ones(k, MOST_ONES, WIDEST)
