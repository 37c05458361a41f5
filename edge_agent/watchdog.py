"""Ends the process where a model hangs it: what starts it again counts, and the updater recovers.

Two watchers. A Python thread looks at heartbeats and says who is stuck. It cannot run while native
code keeps the interpreter's lock, so it also winds up a timer of ``faulthandler``, which needs no
lock and ends the process where nobody winds it up again.
"""

import faulthandler
import os
import sys
import threading
from collections.abc import Callable, Sequence

from edge_agent.heartbeat import Heartbeat

LOOKS = 4
"""Looks within the time that is allowed."""
LOCKED_FACTOR = 2
"""The timer without a lock is the second to fire."""


class Watchdog:
    """Watches threads of this process; only one at a time, as there is one timer."""

    def __init__(
        self,
        heartbeats: Sequence[Heartbeat],
        hang_seconds: float,
        *,
        end: Callable[[], None] = os.abort,
    ) -> None:
        self._heartbeats = heartbeats
        self._hang_seconds = hang_seconds
        self._end = end
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def stuck(self) -> str:
        """Who is stuck, and for how long; empty for nobody."""
        for heartbeat in self._heartbeats:
            seconds = heartbeat.stuck_seconds()
            if seconds > self._hang_seconds:
                return f"{heartbeat.name} does not answer for {seconds:.0f} s"
        return ""

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer."""
        self._stop.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _run(self) -> None:
        while True:
            faulthandler.dump_traceback_later(
                self._hang_seconds * LOCKED_FACTOR, exit=True, file=sys.__stderr__ or 2
            )
            if self._stop.wait(self._hang_seconds / LOOKS):
                return
            reason = self.stuck()
            if reason:
                os.write(2, f"serinus-agent: {reason}; the process ends\n".encode())
                faulthandler.dump_traceback(all_threads=True, file=sys.__stderr__ or 2)
                self._end()
                return
