"""Small bars for a verdict's evidence."""

import math

FULL = 120
"""Width of a bar in pixels when the evidence reaches what is needed."""
MOST = 1.25


def meter(value: float | None, needed: float | None) -> int:
    """Width in pixels of an e-value's bar, on a logarithmic scale from 1 to what is needed."""
    if value is None or needed is None or needed <= 1 or not value > 1:
        return 0
    share = MOST if math.isinf(value) else min(MOST, math.log(value) / math.log(needed))
    return round(FULL * share / MOST)


def evidence(value: float | None) -> str:
    """An e-value, short."""
    if value is None:
        return "-"
    if value >= 1e6:
        return "> 10⁶"
    return f"{value:.3g}"
