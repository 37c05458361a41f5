"""The folder with the server's state, held by one server at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from edge_core.errors import InvalidConfiguration
from fleet_server.config import ServerConfig


@contextlib.contextmanager
def only_server(data: Path) -> Iterator[None]:
    """Hold the data folder, so that no second server decides over the same fleet."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / "server.lock").open("a+")
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot use the data folder {data}: {error.strerror}; name another with data_dir"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InvalidConfiguration(
                f"another server uses the data folder {data}: stop it, or name another data_dir"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def require_data(config: ServerConfig) -> None:
    """Raise :class:`InvalidConfiguration` where no server has ever started."""
    if not config.data.is_dir():
        raise InvalidConfiguration(
            f"no data folder {config.data}: start the server once, or name its settings"
        )
