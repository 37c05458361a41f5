"""Incidents: opened by alerts, with a timeline that collects itself; ended by people.

The journal is read by number, in one transaction with what is made of it, so that every event is
looked at once whatever is killed when.
"""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from fleet_server.domain import incident as rules
from fleet_server.services import postmortem
from fleet_server.services.clock import Clock
from fleet_server.services.errors import Conflict, NotFound
from fleet_server.services.impact import Impact, impact_of
from fleet_server.storage import audit, incidents, journal
from fleet_server.storage.database import Database
from fleet_server.storage.incidents import Entry, StoredIncident
from fleet_server.storage.journal import Alert

READER = "incidents"
MOST_EVENTS = 500
"""Of the journal in one step; the rest follows in the next."""


class IncidentView(msgspec.Struct, frozen=True, kw_only=True):
    """An incident with its timeline and what it did."""

    incident: StoredIncident
    timeline: list[Entry]
    impact: Impact


class Incidents:
    """Use cases on incidents."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def collect(self) -> None:
        """Open what has to be opened, and write what happened since into timelines."""
        with self._database.read() as connection:
            last = incidents.cursor(connection, READER)
            news = journal.events_after(connection, last, 1)
            settled = self._settled(connection)
            opening = self._opening(connection)
        if not news and not settled and not opening:
            return
        with self._database.write() as connection:
            now = self._clock()
            for alert in self._opening(connection):
                self._open(connection, alert, now)
            self._append(connection)
            for row in self._settled(connection):
                incidents.change(connection, row.incident, state="mitigated", mitigated_ms=now)
                line = _line(now, "alert", row, "its alert has closed")
                incidents.note(connection, row.incident, [line])

    def every(self, limit: int, after: tuple[int, int] | None = None) -> list[StoredIncident]:
        """Those that are not resolved first, then the newest."""
        with self._database.read() as connection:
            return incidents.latest(connection, limit, after)

    def counts(self) -> dict[str, int]:
        """State -> incidents, of all that ever were."""
        with self._database.read() as connection:
            return incidents.counts(connection)

    def one(self, number: int) -> IncidentView:
        """One incident; raise :class:`NotFound`."""
        with self._database.read() as connection:
            return self._view(connection, _require(connection, number))

    def note(self, number: int, text: str, *, by: str, role: str) -> IncidentView:
        """Write a person's line into a timeline."""
        with self._database.write() as connection:
            now = self._clock()
            row = _require(connection, number)
            incidents.note(connection, number, [_line(now, by, row, text)])
            _record(connection, now, "note", number, by, role)
            return self._view(connection, row)

    def assign(self, number: int, owner: str, *, by: str, role: str) -> IncidentView:
        """Say who looks after it."""
        with self._database.write() as connection:
            now = self._clock()
            row = _require(connection, number)
            incidents.change(connection, number, owner=owner)
            incidents.note(connection, number, [_line(now, by, row, f"{owner} looks after it")])
            _record(connection, now, "assign", number, by, role)
            return self._view(connection, _require(connection, number))

    def resolve(self, number: int, cause: str, *, by: str, role: str) -> IncidentView:
        """End an incident with its cause; raise :class:`Conflict` where it is ended."""
        with self._database.write() as connection:
            now = self._clock()
            row = _require(connection, number)
            if row.state == "resolved":
                raise Conflict(f"incident {number} was resolved by {row.resolved_by} already")
            incidents.change(
                connection, number, state="resolved", resolved_ms=now, resolved_by=by, cause=cause
            )
            incidents.note(connection, number, [_line(now, by, row, f"resolved: {cause}")])
            _record(connection, now, "resolve", number, by, role)
            return self._view(connection, _require(connection, number))

    def postmortem(self, number: int) -> str:
        """The whole of an incident in Markdown, with open questions for people."""
        view = self.one(number)
        return postmortem.write(view.incident, view.timeline, view.impact)

    def _opening(self, connection: sa.Connection) -> list[Alert]:
        """Open alerts of kinds that open incidents, and that have none yet.

        An incident that a person resolves while its alert is open is not opened again by it; the
        next alert on the same subject goes on in an incident that nobody has resolved.
        """
        have = {(r.kind, r.subject) for r in incidents.unresolved(connection) if r.state == "open"}
        found = [a for kind in rules.OPENING for a in journal.open_alerts(connection, kind)]
        return [
            alert
            for alert in found
            if (alert.kind, alert.subject) not in have
            and not incidents.has_one(connection, alert.kind, alert.subject, alert.opened_ms)
        ]

    def _settled(self, connection: sa.Connection) -> list[StoredIncident]:
        """Open incidents whose alert has closed."""
        alerts = incidents.open_alert_subjects(connection)
        return [
            row
            for row in incidents.unresolved(connection)
            if row.state == "open" and (row.kind, row.subject) not in alerts
        ]

    def _open(self, connection: sa.Connection, alert: Alert, now_ms: int) -> None:
        if self._reopened(connection, alert):
            return
        model = rules.model_of(alert.detail)
        began = int(alert.detail.get("since_ms") or alert.opened_ms)
        row = StoredIncident(
            incident=0,
            kind=alert.kind,
            model=model,
            subject=alert.subject,
            title=alert.title,
            state="open",
            opened_ms=now_ms,
            began_ms=min(began, alert.opened_ms),
        )
        number = incidents.add(connection, row)
        seen = incidents.cursor(connection, READER)
        past = incidents.events_between(connection, row.began_ms - rules.LOOK_BACK_MS, seen)
        line = Entry(
            at_ms=alert.opened_ms, source="alert", kind=alert.kind, subject=alert.subject,
            text=alert.title, detail=alert.detail,
        )  # fmt: skip
        incidents.note(connection, number, [*_belonging(row, past), line])
        said = f"incident {number} opened: {alert.title}"
        journal.add_event(
            connection,
            now_ms,
            "incident",
            str(number),
            said,
            {"model": model, "incident": number, "opened": True},
        )

    def _reopened(self, connection: sa.Connection, alert: Alert) -> bool:
        """Go on with a mitigated incident of the same cause; whether there is one."""
        same = [
            row
            for row in incidents.unresolved(connection)
            if (row.kind, row.subject) == (alert.kind, alert.subject)
        ]
        for row in same:
            incidents.change(connection, row.incident, state="open", mitigated_ms=None)
            line = _line(alert.opened_ms, "alert", row, f"again: {alert.title}")
            incidents.note(connection, row.incident, [line])
        return bool(same)

    def _append(self, connection: sa.Connection) -> None:
        last = incidents.cursor(connection, READER)
        news = journal.events_after(connection, last, MOST_EVENTS)
        if not news:
            return
        entries = [
            Entry(
                at_ms=e.at_ms, source="event", kind=e.kind, subject=e.subject, text=e.text,
                detail=e.detail,
            )
            for e in news
            if e.kind != "incident"
        ]  # fmt: skip
        for row in incidents.unresolved(connection):
            incidents.note(connection, row.incident, _belonging(row, entries))
        incidents.move_cursor(connection, READER, news[-1].event)

    def _view(self, connection: sa.Connection, row: StoredIncident) -> IncidentView:
        return IncidentView(
            incident=row,
            timeline=incidents.timeline(connection, row.incident),
            impact=impact_of(connection, row, self._clock()),
        )


def _belonging(row: StoredIncident, found: Sequence[Entry]) -> list[Entry]:
    return [e for e in found if rules.belongs(row.model, row.subject, e.subject, e.detail)]


def _line(now_ms: int, source: str, row: StoredIncident, text: str) -> Entry:
    return Entry(at_ms=now_ms, source=source, kind=row.kind, subject=row.subject, text=text)


def _record(
    connection: sa.Connection, now_ms: int, what: str, number: int, by: str, role: str
) -> None:
    audit.record(
        connection,
        at_ms=now_ms,
        actor=by,
        role=role,
        action=f"incident.{what}",
        subject=str(number),
    )


def _require(connection: sa.Connection, number: int) -> StoredIncident:
    row = incidents.one(connection, number)
    if row is None:
        raise NotFound(f"no incident {number}; see: serinus incident list")
    return row
