"""A server's real command in a fork of a warm interpreter, which dies by SIGKILL in a transition.

Nothing of the server is replaced: SQLAlchemy tells of every commit, and what the transaction has
written says whether it is the one to die in. A fork costs no imports, so that servers can be
started by the hundred.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy import event

from fleet_server.storage import tables

PR_SET_PDEATHSIG = 1
Point = Literal["uncommitted", "committed", "sent"]
POINTS: tuple[Point, ...] = get_args(Point)
"""In the transaction of the transition, before its commit; when it is committed and nothing else
has happened; when the client has taken the orders and nobody has noted it."""

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "fleet_server.__main__",
        "uvicorn.loops.asyncio",  # and what else a server imports late
        "uvicorn.protocols.http.auto",
        "uvicorn.lifespan.off",
        "anyio._backends._asyncio",
        __name__,
    ]
)
_TURN = threading.Lock()
"""multiprocessing looks after all of its children in every call, so that one thread may call."""


class Death:
    """Kills its process at one point of the next transition of a rollout."""

    def __init__(self, point: Point, rollout: str, moved_ms: int) -> None:
        """Wait for a transition of a rollout that has moved last at ``moved_ms``."""
        self._point = point
        self._rollout = rollout
        self._moved_ms = moved_ms
        self._begun_ms = time.time_ns() // 1_000_000
        self._committing: set[int] = set()
        """Threads whose transaction carries out the transition."""

    def listen(self) -> None:
        """Look at every transaction from now on."""
        event.listen(sa.Engine, "commit", self.at_commit)
        event.listen(sa.Pool, "checkin", self.at_checkin)

    def at_commit(self, connection: sa.Connection) -> None:
        """A transaction has written everything, and is about to be committed."""
        moved, sent = (self._has(connection, found) for found in self._looked_for())
        if moved:
            self._committing.add(threading.get_ident())
        if (self._point == "uncommitted" and moved) or (self._point == "sent" and sent):
            os.kill(os.getpid(), signal.SIGKILL)

    def at_checkin(self, *_: object) -> None:
        """A connection is given back, first of all after a commit."""
        if self._point == "committed" and threading.get_ident() in self._committing:
            os.kill(os.getpid(), signal.SIGKILL)

    def _looked_for(self) -> tuple[sa.Select[Any], sa.Select[Any]]:
        rollouts, desired = tables.rollouts.c, tables.desired.c
        return (
            sa.select(rollouts.rollout).where(
                rollouts.rollout == self._rollout, rollouts.deadline_from_ms > self._moved_ms
            ),
            sa.select(desired.device).where(desired.sent_ms >= self._begun_ms).limit(1),
        )

    @staticmethod
    def _has(connection: sa.Connection, query: sa.Select[Any]) -> bool:
        try:
            return connection.execute(query).first() is not None
        except sa.exc.DatabaseError:  # before there are tables
            return False


class KilledServer:
    """The command ``serinus-server run``, as often as it is started."""

    def __init__(self, settings: Path, log: Path) -> None:
        self._settings = settings
        self._log = log
        self._child: Any = None

    def start(self, death: Death | None = None) -> None:
        """Start it, to die of something or to live."""
        with _TURN:
            self._child = _FORKS.Process(
                target=_serve, args=(str(self._settings), str(self._log), death), daemon=True
            )
            self._child.start()

    def wait_for_death(self, seconds: float) -> None:
        """Wait until it has killed itself."""
        found = wait([self._child.sentinel], seconds)
        with _TURN:
            code = self._child.exitcode if found else None
        if code != -signal.SIGKILL:
            self.kill()
            said = "is still alive" if code is None else f"ended with {code}"
            raise AssertionError(f"the server {said}:\n{self._log.read_text()[-3000:]}")

    @property
    def running(self) -> bool:
        """Whether it lives."""
        return not wait([self._child.sentinel], 0)

    def kill(self) -> None:
        """End it with SIGKILL."""
        with _TURN, contextlib.suppress(ProcessLookupError):
            self._child.kill()
            self._child.join()


def _serve(settings: str, log: str, death: Death | None) -> None:
    from fleet_server.__main__ import main

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with Path(log).open("ab", buffering=0) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    if death is not None:
        death.listen()
    sys.argv = ["serinus-server", "run", "--config", settings]
    main()
