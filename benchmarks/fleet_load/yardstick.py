"""How fast this machine is just now, so that figures of different machines can be compared."""

import time

ADDITIONS = 5_000_000
TRIES = 3


def additions_seconds() -> float:
    """Seconds in which plain Python adds ten million numbers; the best of a few tries."""
    return 2 * min(_seconds() for _ in range(TRIES))


def _seconds() -> float:
    total, begun = 0, time.perf_counter()
    for number in range(ADDITIONS):
        total += number
    return time.perf_counter() - begun


def told() -> str:
    """In words, for what stands under a table."""
    return f"this machine adds ten million numbers in Python in {additions_seconds():.2f} s"
