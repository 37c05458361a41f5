"""When to try again, and when to give up. Pure."""

MOST_DOUBLINGS = 16
LONGEST_PAUSE_SECONDS = 60.0
PROGRESS_BYTES = 64 * 1024


def pause_seconds(attempt: int, first: float, draw: float) -> float:
    """Pause after a failed attempt: doubled each time up to a minute, and spread.

    Args:
        attempt: 0 for the first failure.
        first: pause after it, in seconds.
        draw: 0 to 1, by chance; devices that failed together do not come back together.
    """
    longest = min(first * float(1 << min(attempt, MOST_DOUBLINGS)), LONGEST_PAUSE_SECONDS)
    return longest * (0.5 + 0.5 * draw)


class Patience:
    """Counts attempts that brought nothing.

    An attempt that got further than any before begins the count again. As files are finite and
    each such step is at least ``PROGRESS_BYTES``, there is an end whatever the server does.
    """

    def __init__(self, attempts: int) -> None:
        self._attempts = attempts
        self._furthest = 0
        self.failed = 0
        """Attempts in vain, one after the other."""

    def lost(self, held: int) -> bool:
        """Count a failed attempt after which ``held`` bytes are here; whether to give up."""
        if held >= self._furthest + PROGRESS_BYTES:
            self._furthest = held
            self.failed = 0
        self.failed += 1
        return self.failed >= self._attempts
