"""Processes that are forked from a warm interpreter: everything is imported, so a start is cheap.

Whoever forks here has no thread of its own.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG = 1
FAILED = 99


class Fork:
    """One child. It dies with its parent, and its output goes to a file."""

    def __init__(self, run: Callable[[], int | None], log: Path) -> None:
        self.status: int | None = None
        """As ``os.waitpid`` gives it; none while it runs."""
        self.pid = os.fork()
        if self.pid == 0:
            _become(run, log)

    def running(self) -> bool:
        """Whether it has not ended."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = status if pid else None
        return self.status is None

    @property
    def killed(self) -> bool:
        """Whether it ended by SIGKILL."""
        return (
            not self.running()
            and self.status is not None
            and os.WIFSIGNALED(self.status)
            and os.WTERMSIG(self.status) == signal.SIGKILL
        )

    def kill(self) -> None:
        """End it at once."""
        if self.running():
            os.kill(self.pid, signal.SIGKILL)
            _, self.status = os.waitpid(self.pid, 0)

    def stop(self, seconds: float = 15.0) -> int:
        """Ask it to end; its exit code, or minus the signal that ended it."""
        if self.running():
            os.kill(self.pid, signal.SIGTERM)
        return self.join(seconds)

    def join(self, seconds: float) -> int:
        """Wait for its end; its exit code, or minus the signal that ended it."""
        deadline = time.monotonic() + seconds
        while self.running():
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"a process did not end within {seconds:g} s")
            time.sleep(0.005)
        assert self.status is not None
        return os.waitstatus_to_exitcode(self.status)


def _become(run: Callable[[], int | None], log: Path) -> None:
    """Be the child; never returns."""
    code: int | None = FAILED
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with log.open("ab", buffering=0) as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        code = run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else FAILED
    except BaseException:
        with contextlib.suppress(BaseException):
            traceback.print_exc()
    finally:
        os._exit(code or 0)
