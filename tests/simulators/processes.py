"""Real processes under test: started with a log file, waited for, killed."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

FIRST_PORT, LAST_PORT = 10_000, 32_000
_PORTS = random.SystemRandom()  # forks would otherwise draw the same ones


def command(name: str) -> list[str]:
    """Argument list that runs one of our console scripts with this interpreter."""
    modules = {
        "serinus": "fleet_client.cli",
        "serinus-agent": "edge_agent",
        "serinus-convert": "converters.cli",
        "serinus-server": "fleet_server",
    }
    return [sys.executable, "-m", modules[name]]


def free_port() -> int:
    """Return a TCP port on loopback that was free a moment ago, and that stays free.

    It lies below those that the system gives to outgoing connections, so that none of them has it
    when a server is started on it, or started again.
    """
    while True:
        port = _PORTS.randrange(FIRST_PORT, LAST_PORT)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_for(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Poll until the condition holds; fail with ``what`` when the deadline passes."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.05)


class Process:
    """One child process whose output goes to a file. It dies with the ``with`` block."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        self.arguments = list(arguments)
        self.log = log
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> "Process":
        """Start it (again); the log is appended to."""
        with self.log.open("ab") as stream:
            self._child = subprocess.Popen(
                self.arguments,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        return self

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._child is not None and self._child.poll() is None

    @property
    def code(self) -> int | None:
        """How it ended, a signal as a negative number; none while it runs."""
        assert self._child is not None
        return self._child.poll()

    @property
    def pid(self) -> int:
        """Process number of the running child."""
        assert self._child is not None
        return self._child.pid

    def text(self) -> str:
        """Everything that it printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait_for_text(self, text: str, *, seconds: float = 30) -> None:
        """Wait until it printed ``text``; fail at once when it ended without."""

        def seen() -> bool:
            if text in self.text():
                return True
            if not self.running:
                raise RuntimeError(f"{self.arguments[:4]} ended early:\n{self.text()[-2000:]}")
            return False

        wait_for(seen, seconds=seconds, what=f"{text!r} in {self.log}")

    def kill(self) -> None:
        """End it with SIGKILL, as a power cut would."""
        assert self._child is not None
        self._child.send_signal(signal.SIGKILL)
        self._child.wait()

    def stop(self, *, seconds: float = 15) -> int:
        """Ask it to end with SIGTERM and return its exit code; SIGKILL when it will not."""
        if self._child is None:
            return 0
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def __enter__(self) -> "Process":
        """Start on entry."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Never leave a process behind."""
        if self.running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()


@contextlib.contextmanager
def every(processes: Sequence[Process]) -> Iterator[Sequence[Process]]:
    """Start all of them; stop all of them at the end."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(process) for process in processes]
