"""Whether the server lives and whether it is ready: asked of the parts that can tell."""

from collections.abc import Callable

import msgspec
import sqlalchemy as sa

from edge_core.errors import SerinusError
from fleet_server.services.clock import Clock
from fleet_server.services.kept import Kept
from fleet_server.storage import journal, schema
from fleet_server.storage.database import Database

Check = Callable[[], str]
"""What is wrong; empty where nothing is."""

KEPT_MS = 5000
"""Being ready costs the database a transaction, for scrapes no more than one in so long."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What every check said."""

    ok: bool
    checks: dict[str, str]
    """``ok``, or what is wrong."""


class Health:
    """Checks by name; parts that run beside the services add theirs."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self.lately = Kept(self.ready, clock, KEPT_MS)
        """What :meth:`ready` said within some seconds."""
        self._alive: dict[str, Check] = {}
        self._ready: dict[str, Check] = {"database": self._writable, "releases": self._listed}

    def watch(self, name: str, check: Check, *, alive: bool) -> None:
        """Add a check: of what has to run for the process to live, or of what it needs."""
        (self._alive if alive else self._ready)[name] = check

    def live(self) -> Report:
        """Whether the process does its work; if not, it has to be started again."""
        return _report(self._alive)

    def ready(self) -> Report:
        """Whether it can serve now; if not, that may be over by itself."""
        return _report(self._alive | self._ready)

    def _writable(self) -> str:
        with self._database.write() as connection:
            connection.execute(sa.select(1))
            found = schema.present(connection)
        return "" if found == schema.newest() else f"schema is at revision {found}"

    def _listed(self) -> str:
        with self._database.read() as connection:
            alerts = journal.open_alerts(connection, "repository")
        return "; ".join(alert.title for alert in alerts[:3])


def _report(checks: dict[str, Check]) -> Report:
    found = {name: _said(check) for name, check in sorted(checks.items())}
    return Report(ok=set(found.values()) <= {"ok"}, checks=found)


def _said(check: Check) -> str:
    try:
        return check() or "ok"
    except SerinusError as error:
        return str(error)
