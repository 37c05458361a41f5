"""Numbers as the page shows them: small bars for a verdict's evidence, and what answers cost."""

import math

from fleet_server.services.cost import CostView

FULL = 120
"""Width of a bar in pixels when the evidence reaches what is needed."""
MOST = 1.25
WHOLE = 100
"""From here on, no digits after the point."""


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


def cost(view: CostView) -> str:
    """What a release's answers cost, as far as it was measured."""
    each = view.per_thousand
    told = (
        (view.cpu_us_per_prediction, "µs of CPU a prediction"),
        (view.bytes_per_device_hour, "bytes a device-hour"),
        (each.total if each else None, f"{view.currency} a thousand predictions"),
    )
    return " · ".join(f"{_short(value)} {of}" for value, of in told if value is not None)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= WHOLE else f"{value:.3g}"


def short(count: int) -> str:
    """A count in a few letters."""
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1e6:.3g}M" if count >= 999_500 else f"{count / 1e3:.3g}k"
