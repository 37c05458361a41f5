"""A sign of life of one thread: whether it works, and since when on the same piece."""

import time
from collections.abc import Callable
from types import TracebackType


class Heartbeat:
    """Set by the thread that works, read by the one that watches. No lock: one value is swapped.

    ``with heartbeat:`` marks a piece of work; :meth:`beat` within it begins another.
    """

    def __init__(self, name: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._monotonic = monotonic
        self._since: float | None = None

    def busy(self) -> None:
        """A piece of work begins."""
        self._since = self._monotonic()

    def beat(self) -> None:
        """The work goes on; it is not stuck."""
        if self._since is not None:
            self._since = self._monotonic()

    def idle(self) -> None:
        """Nothing is to be done."""
        self._since = None

    def stuck_seconds(self) -> float:
        """Time since the present piece of work began; 0 where there is none."""
        since = self._since
        return 0.0 if since is None else self._monotonic() - since

    def __enter__(self) -> None:
        self.busy()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.idle()
