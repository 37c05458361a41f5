"""A server that dies by SIGKILL just before or after the commit that issues a certificate.

``python -m tests.simulators.killed_in_enrolment uncommitted|committed ARGUMENTS...`` runs the
server's command. Nothing of the server is replaced: SQLAlchemy tells of every commit.
"""

import os
import signal
import sys
import threading
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from fleet_server.__main__ import main
from fleet_server.storage.tables import certificates

_issuing: set[int] = set()
"""Threads whose transaction has issued one."""


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _, point, *rest = sys.argv

    def at_statement(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        """A statement is about to be carried out."""
        if statement.startswith(f"INSERT INTO {certificates.name} "):
            _issuing.add(threading.get_ident())

    def at_commit(_connection: sa.Connection) -> None:
        """A transaction is about to be committed."""
        if point == "uncommitted" and threading.get_ident() in _issuing:
            _die()

    def at_checkin(*_: object) -> None:
        """A connection is given back, first of all after a commit."""
        if threading.get_ident() in _issuing:
            _die()

    event.listen(sa.Engine, "before_cursor_execute", at_statement)
    event.listen(sa.Engine, "commit", at_commit)
    event.listen(sa.Pool, "checkin", at_checkin)
    sys.argv[1:] = rest
    main()
