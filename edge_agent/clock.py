"""The machine's clocks."""

import time

_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux tells sleep as well."""


class SystemClock:
    """Wall-clock time for messages, monotonic time for durations."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        return time.time_ns() // 1_000_000

    def now_us(self) -> int:
        """Microseconds since 1970, UTC."""
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        """Seconds that only go forward."""
        return time.monotonic()

    def since_boot_ms(self) -> int:
        """Milliseconds since the machine started, sleep included where the system counts it."""
        return time.clock_gettime_ns(_SINCE_BOOT) // 1_000_000
