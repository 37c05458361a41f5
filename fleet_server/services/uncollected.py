"""Work on many rows at once, without Python looking through them for cycles meanwhile."""

import contextlib
import gc
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_holders = 0


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Put off the search for cyclic garbage in the whole process, for a few seconds at most.

    Rows of 100,000 devices form no cycles, but the collector goes through all of them again and
    again while they become more: a third of the time of a decision.
    """
    global _holders  # the collector is the process's, too
    with _lock:
        _holders += 1
        gc.disable()
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if not _holders:
                gc.enable()
