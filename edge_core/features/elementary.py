"""Logarithm, sine and cosine with the same bits everywhere.

Mathematics libraries differ in the last bit. These use only what IEEE 754 rounds correctly:
additions, multiplications, divisions, and splitting a number into mantissa and exponent. Errors
stay below 1e-15, far below the rounding to float32 that follows.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

LN2: Final = 0.6931471805599453
LOG_TERMS: Final = tuple(1.0 / (2 * k + 1) for k in range(12))
SIN_TERMS: Final = tuple((-1.0) ** k / math.factorial(2 * k + 1) for k in range(9))
COS_TERMS: Final = tuple((-1.0) ** k / math.factorial(2 * k) for k in range(9))
TAU: Final = 6.283185307179586


def log1p(values: Float64) -> Float64:
    """Natural logarithm of 1 + x for x > -1, float64 of any shape.

    log(m 2^e) = e log 2 + 2 artanh((m - 1) / (m + 1)) for m in [sqrt(1/2), sqrt(2)); what 1 + x
    lost by rounding is put back as in Kahan's log1p (Goldberg, "What Every Computer Scientist
    Should Know About Floating-Point Arithmetic", 1991, theorem 4).
    """
    whole = 1.0 + values
    mantissa, exponent = np.frexp(whole)
    small = mantissa < math.sqrt(0.5)
    mantissa = np.where(small, mantissa * 2.0, mantissa)
    exponent = exponent - small
    part = (mantissa - 1.0) / (mantissa + 1.0)
    logarithm = exponent * LN2 + 2.0 * part * _series(LOG_TERMS, part * part)
    step = whole - 1.0
    found: Float64 = np.where(
        step == 0.0, values, logarithm * (values / np.where(step == 0.0, 1.0, step))
    )
    return found


def log1p_of(value: float) -> float:
    """As :func:`log1p`, of one number."""
    whole = 1.0 + value
    mantissa, exponent = math.frexp(whole)
    if mantissa < math.sqrt(0.5):
        mantissa, exponent = mantissa * 2.0, exponent - 1
    step = whole - 1.0
    if step == 0.0:
        return value
    part = (mantissa - 1.0) / (mantissa + 1.0)
    logarithm = exponent * LN2 + 2.0 * part * _series_of(LOG_TERMS, part * part)
    return logarithm * (value / step)


def circle(turned: Int64, period: Int64 | int) -> tuple[Float64, Float64]:
    """Sine and cosine of the angle ``turned / period`` of a full turn.

    Args:
        turned: whole numbers from 0 to below ``period``.
        period: positive, below 2^59.
    """
    octant, rest = np.divmod(turned * 8, period)
    # Odd octants are measured from their end, so that angles stay below an eighth of a turn.
    odd = octant % 2 == 1
    angle = np.where(odd, period - rest, rest) / (8.0 * np.asarray(period, np.float64)) * TAU
    square = angle * angle
    sine, cosine = angle * _series(SIN_TERMS, square), _series(COS_TERMS, square)
    swapped = (octant == 1) | (octant == 2) | (octant == 5) | (octant == 6)
    y, x = np.where(swapped, cosine, sine), np.where(swapped, sine, cosine)
    below, left = octant >= 4, (octant >= 2) & (octant < 6)
    return np.where(below, -y, y), np.where(left, -x, x)


def circle_of(turned: int, period: int) -> tuple[float, float]:
    """As :func:`circle`, of one angle."""
    octant, rest = divmod(turned * 8, period)
    angle = (period - rest if octant % 2 else rest) / (8.0 * period) * TAU
    square = angle * angle
    sine, cosine = angle * _series_of(SIN_TERMS, square), _series_of(COS_TERMS, square)
    y, x = (cosine, sine) if octant in (1, 2, 5, 6) else (sine, cosine)
    return -y if octant >= 4 else y, -x if 2 <= octant < 6 else x


def _series(terms: tuple[float, ...], at: Float64) -> Float64:
    """A polynomial by Horner's rule, lowest term first."""
    total = np.full_like(at, terms[-1])
    for term in terms[-2::-1]:
        total = total * at + term
    return total


def _series_of(terms: tuple[float, ...], at: float) -> float:
    total = terms[-1]
    for term in terms[-2::-1]:
        total = total * at + term
    return total
