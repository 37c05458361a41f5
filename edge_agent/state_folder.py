"""Who owns the state folder: one process at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_core.errors import InvalidConfiguration


@contextmanager
def only_one(state_dir: Path) -> Iterator[None]:
    """Own the state folder for as long as the context lasts, also across ``kill -9``.

    Raises:
        InvalidConfiguration: another agent owns it, or it cannot be written.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        descriptor = _opened(state_dir / "lock")
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot write the state folder {state_dir}: {error.strerror}"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise InvalidConfiguration(
            f"another agent uses the state folder {state_dir}; stop it first"
        ) from error
    finally:
        os.close(descriptor)


def _opened(lock: Path) -> int:
    """Open the lock; one that is there also where nothing can be written, to serve on all the same.

    Raises:
        OSError: it is not there and cannot be made.
    """
    try:
        return os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        try:
            return os.open(lock, os.O_RDONLY)
        except OSError:
            raise error from None
