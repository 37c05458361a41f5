"""Time as the services take it."""

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Milliseconds since 1970, UTC."""


def wall_clock() -> int:
    """Read this machine's clock."""
    return time.time_ns() // 1_000_000
