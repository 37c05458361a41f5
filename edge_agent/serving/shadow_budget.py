"""How much of a core shadows may use: a token bucket of CPU seconds. No clock."""

BURST_SECONDS = 0.25
"""CPU time that a rested bucket holds: a few large batches at once, and then the share."""


class ShadowBudget:
    """Fills by ``share`` CPU seconds each second. Work is paid when it is done, also on credit.

    What a batch costs is known only afterwards, so one may overdraw the bucket; the next has to
    wait until that is paid back. Times are monotonic seconds.
    """

    def __init__(self, share: float, now: float) -> None:
        self._share = share
        self._tokens = BURST_SECONDS if share else 0.0
        self._at = now

    def allows(self, now: float) -> bool:
        """Whether shadow work may begin."""
        return self._filled(now) > 0.0

    def spend(self, cpu_seconds: float, now: float) -> None:
        """Pay for work that was done."""
        self._tokens = self._filled(now) - cpu_seconds

    def pause(self, now: float) -> float | None:
        """Seconds until work may begin; none where it never may."""
        tokens = self._filled(now)
        if tokens > 0.0:
            return 0.0
        return -tokens / self._share + 1e-3 if self._share else None

    def _filled(self, now: float) -> float:
        self._tokens = min(BURST_SECONDS, self._tokens + self._share * max(0.0, now - self._at))
        self._at = max(self._at, now)
        return self._tokens
