"""A value that is read from the database at most once in some time, whoever asks how often."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from fleet_server.services.clock import Clock

T = TypeVar("T")


class Kept(Generic[T]):
    """Reads a value when it is asked for, and gives the same one for ``kept_ms`` from then on.

    What raises is not kept: the next one who asks reads again.
    """

    def __init__(self, read: Callable[[], T], clock: Clock, kept_ms: int) -> None:
        self._read = read
        self._clock = clock
        self._kept_ms = kept_ms
        self._lock = threading.Lock()
        self._found: tuple[int, T] | None = None

    def __call__(self) -> T:
        """The value, as old as ``kept_ms`` at most."""
        with self._lock:
            now = self._clock()
            if self._found is None or not 0 <= now - self._found[0] < self._kept_ms:
                self._found = (now, self._read())
            return self._found[1]
