"""Every file operation of a process that changes something below one folder, before it happens.

Python's audit events (PEP 578) tell of opens, renames, removals and new folders. They do not tell
of writes and fsync: ``os.fsync``, ``os.open`` and ``io.open`` are wrapped for them, which is the
only thing here that is not as on a device. What sqlite does by itself is not seen.
"""

import builtins
import io
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FOLDER_EVENTS = {"os.mkdir": 2, "os.rmdir": 1, "os.remove": 1, "os.truncate": None}
"""Audit events whose first argument is the path, and where their ``dir_fd`` stands."""


class Operation(NamedTuple):
    """One thing that is about to be done to a path."""

    kind: str
    """open, write, fsync, rename, mkdir, rmdir, remove or truncate."""
    path: str


Meet = Callable[[Operation], int | None]
"""Sees an operation; may end the process, or return the error number that it fails with."""


def watch(folder: Path, meet: Meet) -> None:
    """Have ``meet`` see every operation of this process from now on."""
    _Watch(str(folder.resolve()), meet).install()


class _Watch:
    def __init__(self, folder: str, meet: Meet) -> None:
        self._folder = folder
        self._meet = meet
        self._inside = False

    def install(self) -> None:
        sys.addaudithook(self._hear)
        os.fsync = self._fsync(os.fsync)
        os.open = self._opened(os.open)
        opened = self._opened(io.open)
        io.open = builtins.open = opened
        tempfile._io.open = opened  # type: ignore[attr-defined]

    def _happen(self, kind: str, path: str) -> int | None:
        if not path.startswith(self._folder):
            return None
        return self._meet(Operation(kind, path))

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """See one audit event; raising makes the operation fail."""
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int) or not flags & CHANGING:
                return
            self._refuse("open", os.fsdecode(path))
        elif event in FOLDER_EVENTS:
            place = FOLDER_EVENTS[event]
            at = arguments[place] if place is not None else -1
            self._refuse(event.removeprefix("os."), _anchored(arguments[0], at))
        elif event == "os.rename":
            source, target, source_at, target_at = arguments
            del source, source_at
            self._refuse("rename", _anchored(target, target_at))

    def _refuse(self, kind: str, path: str) -> None:
        number = self._happen(kind, path)
        if number is not None:
            raise OSError(number, os.strerror(number), path)

    def _fsync(self, real: Callable[[Any], None]) -> Callable[[Any], None]:
        def fsync(file: Any) -> None:
            number = file if isinstance(file, int) else file.fileno()
            self._refuse("fsync", _anchored("", number))
            real(file)

        return fsync

    def _opened(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """After an open that may write: the writes, which fail for real on a full device."""

        def opened(file: Any, mode: Any = "r", *rest: Any, **options: Any) -> Any:
            result = real(file, mode, *rest, **options)
            changing = mode & CHANGING if isinstance(mode, int) else set(mode) & set("wax+")
            if isinstance(file, int) or options.get("opener") or not changing:
                return result
            if self._happen("write", os.fsdecode(file)) is not None:
                full = os.open("/dev/full", os.O_WRONLY)
                os.dup2(full, result if isinstance(result, int) else result.fileno())
                os.close(full)
            return result

        return opened


def _anchored(path: Any, at: int) -> str:
    """The whole path of one that is given relative to an open folder; ``""`` for that itself."""
    name = os.fsdecode(path)
    if at < 0 or name.startswith("/"):
        return name
    return str(Path(f"/proc/self/fd/{at}").readlink() / name)
