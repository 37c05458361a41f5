"""Which process decides: an advisory lock, a lease and a fencing epoch.

The lock lets one in, and goes at once with a process that dies. The lease takes it from one that
does not move. The epoch keeps what such a process still has in mind out of the database when it
moves again. Source: M. Kleppmann, Designing Data-Intensive Applications, 2017, "Fencing tokens".
"""

import os
import socket

import sqlalchemy as sa

from fleet_server.services.clock import Clock
from fleet_server.storage import leadership
from fleet_server.storage.database import Database
from fleet_server.storage.engines import LeaderLock
from fleet_server.storage.leadership import NotLeading

LEASE_MS = 15_000
"""A leader that was not heard of for so long is taken for stopped."""
RENEW_MS = 3_000


class Leading:
    """One process's part in the election; one thread calls, any may ask ``leads`` and ``check``."""

    def __init__(self, database: Database, clock: Clock, *, lease_ms: int = LEASE_MS) -> None:
        self._database = database
        self._clock = clock
        self._lease_ms = lease_ms
        self._holder = f"{socket.gethostname()[:100]} process {os.getpid()}"
        self._lock: LeaderLock | None = None
        self._epoch: int | None = None
        self._renewed_ms = 0

    @property
    def leads(self) -> bool:
        """Whether this process believes that it decides; :meth:`check` knows."""
        return self._epoch is not None

    @property
    def epoch(self) -> int | None:
        """Number of this leadership; none where another leads."""
        return self._epoch

    def lead(self) -> bool:
        """Stay leader, or become it where there is none; whether this process decides now.

        Raises:
            Unavailable: the database cannot say.
        """
        if self._lock is not None and not self._lock.held():
            self.release()
        try:
            if self._epoch is None:
                return self._take_over()
            if self._clock() - self._renewed_ms >= min(RENEW_MS, self._lease_ms // 4):
                self._renew()
        except NotLeading:
            self.release()
            return False
        return True

    def check(self, connection: sa.Connection) -> None:
        """Raise :class:`NotLeading` within a transaction where another has taken over."""
        epoch = self._epoch
        if epoch is None:
            raise NotLeading("another process decides now")
        leadership.check(connection, epoch)

    def confirmed(self) -> bool:
        """Whether this process leads at this moment: asked before something is sent."""
        with self._database.read() as connection:
            found = leadership.present(connection)
        return found is not None and found.epoch == self._epoch

    def release(self) -> None:
        """Let another lead."""
        self._epoch = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _take_over(self) -> bool:
        if self._lock is None:
            self._lock = self._database.try_lead()
        if self._lock is None:
            self._challenge()
            return False
        with self._database.write() as connection:
            now = leadership.now_ms(connection, self._clock())
            epoch = leadership.take_over(connection, self._holder, now)
        self._epoch, self._renewed_ms = epoch, self._clock()
        return True

    def _renew(self) -> None:
        with self._database.write() as connection:
            self.check(connection)
            leadership.renew(connection, leadership.now_ms(connection, self._clock()))
        self._renewed_ms = self._clock()

    def _challenge(self) -> None:
        """Take the lock from a leader that does not move; the next call may then have it."""
        with self._database.read() as connection:
            found = leadership.present(connection)
            now = leadership.now_ms(connection, self._clock())
        if found is not None and now - found.renewed_ms > self._lease_ms:
            self._database.end_leader()
