"""How often a device may tell something that is kept, so that none fills the database alone."""

from collections import Counter

HOUR_MS = 3_600_000


class Quota:
    """Counts by device within the hour; remembers nothing of hours before."""

    def __init__(self, most: int) -> None:
        """Let each device have so many in an hour."""
        self._most = most
        self._hour = -1
        self._used: Counter[str] = Counter()

    def take(self, device: str, now_ms: int) -> bool:
        """Use one up; whether there was one left."""
        hour = now_ms // HOUR_MS
        if hour != self._hour:
            self._hour = hour
            self._used.clear()
        if self._used[device] >= self._most:
            return False
        self._used[device] += 1
        return True
