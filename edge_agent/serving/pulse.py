"""Whether the inference thread is alive: it works, waits for work, or hangs in a runtime."""

import threading
from collections.abc import Callable

from edge_core.errors import Unavailable


class Pulse:
    """Set by the inference thread around its work, read by any other."""

    def __init__(self, monotonic: Callable[[], float], *, limit_seconds: float) -> None:
        """Begin idle.

        Args:
            monotonic: clock in seconds.
            limit_seconds: work that takes longer counts as hanging.
        """
        self._monotonic = monotonic
        self._limit = limit_seconds
        self._began: float | None = None

    def begin(self) -> None:
        """Work begins."""
        self._began = self._monotonic()

    def end(self) -> None:
        """It waits for work."""
        self._began = None

    def check(self, thread: threading.Thread) -> None:
        """Raise :class:`Unavailable` where the thread is dead or hangs."""
        began = self._began  # once: the thread may set it at any time
        if not thread.is_alive():
            raise Unavailable("the inference thread has ended; restart the agent")
        if began is not None and (busy := self._monotonic() - began) > self._limit:
            raise Unavailable(
                f"the inference thread has been at one batch for {busy:.0f} s; the limit is "
                f"{self._limit:g} s: the runtime hangs, restart the agent"
            )
