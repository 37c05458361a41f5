"""What is done about a drift: by a person in one call, or by a policy at once."""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from fleet_server.domain.drifting.finding import KINDS, RESPONSES, DriftFinding
from fleet_server.services import commands
from fleet_server.services.catalog import Catalog
from fleet_server.services.clock import Clock
from fleet_server.services.commands import KIND_OFF, KIND_ON
from fleet_server.services.errors import Conflict, InvalidRequest, NotFound
from fleet_server.services.evidence import DRIFT
from fleet_server.services.retraining import Retraining
from fleet_server.storage import audit, devices, drift, drift_responses, journal, releases
from fleet_server.storage.database import Database
from fleet_server.storage.drift_responses import StoredPolicy, StoredResponse
from fleet_server.storage.journal import Alert

POLICY = "policy"
MAX_REASON = 500


class DriftView(msgspec.Struct, frozen=True, kw_only=True):
    """An open drift, and what was done about it."""

    alert: Alert
    suggested: str
    responses: list[StoredResponse]


class DriftResponses:
    """Use cases on open drifts."""

    def __init__(
        self, database: Database, catalog: Catalog, clock: Clock, retraining: Retraining
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._clock = clock
        self._retraining = retraining

    def every(self) -> list[DriftView]:
        """Drifts that have not ended."""
        with self._database.read() as connection:
            return [_view(connection, alert) for alert in journal.open_alerts(connection, DRIFT)]

    def respond(
        self,
        model: str,
        action: str | None,
        reason: str,
        *,
        for_seconds: float | None = None,
        by: str,
        role: str,
    ) -> DriftView:
        """Do something about a model's open drift.

        Args:
            model: its name.
            action: one of :data:`RESPONSES`; none: the suggested one.
            reason: kept beside it.
            for_seconds: when a fallback ends by itself; none: when the drift ends.
            by: who asks.
            role: in which role.

        Raises:
            InvalidRequest: no such action.
            NotFound: the model does not drift now.
            Conflict: a request to train it has not ended, or nothing runs the model.
        """
        with self._database.read() as connection:
            alert = _open(connection, model)
        chosen = action or str(alert.detail.get("response", "rethink"))
        if chosen not in RESPONSES:
            raise InvalidRequest(f"a response is one of {', '.join(RESPONSES)}")
        if len(reason) > MAX_REASON or not reason.isprintable():
            raise InvalidRequest(f"a reason is one printable line of at most {MAX_REASON} letters")
        if for_seconds is not None and not 1 <= for_seconds <= commands.LONGEST_SECONDS:
            raise InvalidRequest("a fallback may hold for 1 s to 366 days")
        detail: dict[str, Any] = {}
        if chosen == "retrain":
            asked = self._retraining.ask(
                model, reason or alert.title[:MAX_REASON], automation="build", by=by, role=role,
                alert=alert.alert,
            )  # fmt: skip
            detail = {"request": asked.request}
        with self._database.write() as connection:
            now = self._clock()
            alert = _open(connection, model)
            if chosen == "fallback":
                until = None if for_seconds is None else now + round(for_seconds * 1000)
                why = reason or alert.title[:MAX_REASON]
                ordered = _fall_back(connection, model, why, until, by, now)
                if not ordered:
                    raise Conflict(f"no device runs {model}: nothing can fall back")
                detail = {"devices": ordered}
            if chosen == "usual":
                self._learn_anew(connection, model)
            _note(connection, alert, chosen, reason, detail, by, now)
            audit.record(
                connection, at_ms=now, actor=by, role=role, action=f"drift.{chosen}",
                subject=model, detail={"alert": alert.alert, "reason": reason, **detail},
            )  # fmt: skip
            found = _view(connection, alert)
            if chosen == "usual":
                end_policy(connection, model, "this is usual now", now)
                journal.close_alert(connection, now, DRIFT, model)
            return found

    def policies(self) -> list[StoredPolicy]:
        """Models whose devices fall back by themselves."""
        with self._database.read() as connection:
            return drift_responses.policies(connection)

    def set_policy(
        self, model: str, fallback: Sequence[str], *, by: str, role: str
    ) -> StoredPolicy:
        """Let a model's devices fall back as soon as a drift of these kinds opens.

        Raises:
            InvalidRequest: no such kind.
        """
        unknown = sorted(set(fallback) - set(KINDS))
        if unknown:
            raise InvalidRequest(
                f"unknown kind {unknown[0][:32]!r}; a drift is one of {', '.join(KINDS)}"
            )
        with self._database.write() as connection:
            now = self._clock()
            kinds = sorted(set(fallback))
            row = StoredPolicy(model=model, fallback=kinds, set_ms=now, set_by=by)
            drift_responses.put_policy(connection, row)
            audit.record(
                connection, at_ms=now, actor=by, role=role, action="drift.policy", subject=model,
                detail={"fallback": kinds},
            )  # fmt: skip
            return row

    def drop_policy(self, model: str, *, by: str, role: str) -> None:
        """Let a model's devices wait for a person; raise :class:`NotFound`."""
        with self._database.write() as connection:
            if not drift_responses.drop_policy(connection, model):
                raise NotFound(f"no policy for {model[:64]!r}; see: serinus drift policies")
            audit.record(
                connection, at_ms=self._clock(), actor=by, role=role, action="drift.drop_policy",
                subject=model,
            )  # fmt: skip

    def _learn_anew(self, connection: sa.Connection, model: str) -> None:
        """What is seen now is usual from now on, for every release of the model."""
        for digest, stored in drift.states(connection).items():
            release = self._catalog.get(connection, digest)
            if release is not None and release.ref.model == model:
                drift.put_state(connection, digest, b"", b"", stored.period)


def by_policy(connection: sa.Connection, model: str, finding: DriftFinding, now_ms: int) -> None:
    """Do what the model's policy says about a drift that opened just now."""
    found = {row.model: row for row in drift_responses.policies(connection)}.get(model)
    if found is None or finding.kind not in found.fallback:
        return
    alert = _open(connection, model)
    ordered = _fall_back(connection, model, finding.summary[:MAX_REASON], None, POLICY, now_ms)
    detail = {"devices": ordered}
    _note(connection, alert, "fallback", f"{finding.kind} drift", detail, POLICY, now_ms)
    audit.record(
        connection, at_ms=now_ms, actor=POLICY, role=POLICY, action="drift.fallback",
        subject=model, detail={"alert": alert.alert, **detail},
    )  # fmt: skip


def end_policy(connection: sa.Connection, model: str, text: str, now_ms: int) -> None:
    """Let devices ask their model again, that fell back for a drift that has ended."""
    alerts = [alert for alert in journal.open_alerts(connection, DRIFT) if alert.subject == model]
    fell = [
        row
        for alert in alerts
        for row in drift_responses.of_alert(connection, alert.alert)
        if row.action == "fallback"
    ]
    if fell:
        models = _running(connection, model)
        commands.issue(
            connection, models, KIND_OFF, reason=f"the drift has ended: {text}"[:MAX_REASON],
            until_ms=None, by=POLICY, now_ms=now_ms,
        )  # fmt: skip


def _fall_back(
    connection: sa.Connection, model: str, reason: str, until_ms: int | None, by: str, now_ms: int
) -> int:
    """Order every device that runs the model to let its baseline answer; how many they are."""
    models = _running(connection, model)
    commands.issue(
        connection, models, KIND_ON, reason=_printable(reason), until_ms=until_ms, by=by,
        now_ms=now_ms,
    )  # fmt: skip
    return len(models)


def _running(connection: sa.Connection, model: str) -> dict[str, str]:
    names = releases.names(connection)
    return {
        device.device: model
        for device in devices.every(connection)
        if names.get(device.active or "", "").partition("@")[0] == model
    }


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _note(
    connection: sa.Connection,
    alert: Alert,
    action: str,
    reason: str,
    detail: dict[str, Any],
    by: str,
    now_ms: int,
) -> None:
    row = StoredResponse(
        response=0,
        alert=alert.alert,
        model=alert.subject,
        action=action,
        reason=reason,
        detail=detail,
        at_ms=now_ms,
        by=by,
    )
    drift_responses.add(connection, row)
    text = f"{by} answers with {action}" + (f": {reason}" if reason else "")
    told = {"model": alert.subject, "alert": alert.alert, "action": action, **detail}
    journal.add_event(connection, now_ms, DRIFT, alert.subject, text, told)


def _open(connection: sa.Connection, model: str) -> Alert:
    for alert in journal.open_alerts(connection, DRIFT):
        if alert.subject == model:
            return alert
    raise NotFound(f"{model[:64]!r} does not drift now; see: serinus drift list")


def _view(connection: sa.Connection, alert: Alert) -> DriftView:
    return DriftView(
        alert=alert,
        suggested=str(alert.detail.get("response", "")),
        responses=drift_responses.of_alert(connection, alert.alert),
    )
