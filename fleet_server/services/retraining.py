"""Training a model again: asked for by people, drift or a schedule; done by workers elsewhere.

A worker holds a request on a lease that it renews. One that is killed loses it, and the request is
given out again; what it reports afterwards is refused, so that no request ends twice.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from edge_core.errors import SerinusError
from fleet_server.domain import retraining as rules
from fleet_server.domain.retraining import AUTOMATIONS, ENDED, RESULTS, Cause, Past, Policy
from fleet_server.services.catalog import Catalog
from fleet_server.services.clock import Clock
from fleet_server.services.errors import Conflict, InvalidRequest, NotFound
from fleet_server.services.evidence import DRIFT
from fleet_server.services.rollouts import Rollouts
from fleet_server.storage import audit, journal, releases, retraining
from fleet_server.storage.database import Database
from fleet_server.storage.retraining import StoredPolicy, StoredRequest

RETRAINING = "retraining"
LEASE_MS = 120_000
MOST_GATES = 200
SERVER = "server"
UNTRAINABLE = ("upstream", "seasonal")
"""Kinds of drift that training again does not help: broken sources, and what passes by itself."""


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A request in a worker's hands."""

    request: int
    model: str
    reason: str
    incumbent: str | None
    """``model@version`` of what is in production; none where nothing is."""
    incumbent_digest: str | None
    lease: str
    lease_seconds: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker ends a request."""

    lease: str
    state: str
    outcome: str
    """One line."""
    release: str | None = None
    digest: str | None = None
    gates: list[dict[str, Any]] = []
    """Those that did not pass, as the manifest writes them."""


class Retraining:
    """Use cases on requests and policies."""

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        clock: Clock,
        rollouts: Rollouts,
        draw: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._clock = clock
        self._rollouts = rollouts
        self._draw = draw

    def ask(
        self,
        model: str,
        reason: str,
        *,
        automation: str,
        by: str,
        role: str,
        alert: int | None = None,
    ) -> StoredRequest:
        """Ask for training now.

        Raises:
            InvalidRequest: no such level of automation.
            NotFound: no release of the model was ever approved.
            Conflict: a request for the model has not ended.
        """
        if automation not in AUTOMATIONS:
            known = ", ".join(AUTOMATIONS)
            raise InvalidRequest(f"automation {automation[:64]!r} is not one of {known}")
        with self._database.write() as connection:
            if model not in {ref.model for ref in releases.identities(connection)}:
                raise NotFound(f"no release of a model {model[:64]!r} was ever approved")
            if retraining.unfinished(connection, model):
                raise Conflict(
                    f"a request to train {model} has not ended: see serinus retrain list"
                )
            policy = Policy(model=model, automation=automation)
            return self._add(connection, policy, "person", reason, by=by, role=role, alert=alert)

    def approve(self, number: int, *, by: str, role: str) -> StoredRequest:
        """Let a worker take what was only suggested."""
        return self._move(number, ("suggested",), "open", "approved", by=by, role=role)

    def cancel(self, number: int, reason: str, *, by: str, role: str) -> StoredRequest:
        """End a request; a worker that has it is told at its next word."""
        states = ("suggested", "open", "taken")
        return self._move(number, states, "cancelled", f"cancelled: {reason}", by=by, role=role)

    def claim(self, worker: str, models: Sequence[str]) -> Claimed | None:
        """Give a worker the oldest open request for one of the models that it can build."""
        with self._database.write() as connection:
            now = self._clock()
            self._take_back(connection, now)
            row = retraining.next_open(connection, models)
            if row is None:
                return None
            present = releases.in_production(connection).get(row.model)
            taken = msgspec.structs.replace(
                row,
                state="taken",
                worker=worker,
                lease=self._draw(),
                leased_until_ms=now + LEASE_MS,
                attempts=row.attempts + 1,
                incumbent=present.digest if present else None,
                progress="taken",
            )
            retraining.change(connection, taken)
            self._say(connection, taken, f"taken by {worker}", now)
            names = releases.names(connection)
            return Claimed(
                request=taken.request,
                model=taken.model,
                reason=taken.reason,
                incumbent=names[present.digest] if present else None,
                incumbent_digest=taken.incumbent,
                lease=taken.lease or "",
                lease_seconds=LEASE_MS / 1000,
            )

    def renew(self, number: int, lease: str, progress: str) -> StoredRequest:
        """Keep a request for longer; raise :class:`Conflict` where it is not held any more."""
        with self._database.write() as connection:
            row = self._held(connection, number, lease)
            renewed = msgspec.structs.replace(
                row, leased_until_ms=self._clock() + LEASE_MS, progress=progress
            )
            retraining.change(connection, renewed)
            return renewed

    def finish(self, number: int, result: Result, *, by: str, role: str) -> StoredRequest:
        """End a request as its worker says. A refusal pages: alert and event of severity ``page``.

        Raises:
            InvalidRequest: no such result, or one that was published without a release.
            Conflict: the worker does not hold it any more.
        """
        _check(result)
        with self._database.write() as connection:
            now = self._clock()
            row = self._held(connection, number, result.lease)
            ended = msgspec.structs.replace(
                row,
                state=result.state,
                outcome=result.outcome,
                release=result.release,
                digest=result.digest,
                gates=result.gates[:MOST_GATES],
                finished_ms=now,
                lease=None,
                leased_until_ms=None,
            )
            retraining.change(connection, ended)
            self._ended(connection, ended, now)
            self._record(connection, ended, f"retrain.{result.state}", now, by=by, role=role)
            return ended

    def every(self, limit: int, before: int | None = None) -> list[StoredRequest]:
        """The newest requests, newest first."""
        with self._database.read() as connection:
            return [_shown(row) for row in retraining.latest(connection, limit, before)]

    def one(self, number: int) -> StoredRequest:
        """One request; raise :class:`NotFound`."""
        with self._database.read() as connection:
            return _shown(_require(connection, number))

    def policies(self) -> list[StoredPolicy]:
        """Every model's policy."""
        with self._database.read() as connection:
            return retraining.policies(connection)

    def set_policy(self, policy: Policy, *, by: str, role: str) -> StoredPolicy:
        """Set when a model asks for training by itself; raise :class:`InvalidRequest`."""
        if policy.automation not in AUTOMATIONS:
            raise InvalidRequest(f"automation is one of {', '.join(AUTOMATIONS)}")
        with self._database.write() as connection:
            now = self._clock()
            retraining.put_policy(connection, policy, now, by)
            detail = msgspec.to_builtins(policy)
            audit.record(
                connection, at_ms=now, actor=by, role=role, action="retrain.policy",
                subject=policy.model, detail=detail,
            )  # fmt: skip
            rows = retraining.policies(connection)
            return next(row for row in rows if row.model == policy.model)

    def drop_policy(self, model: str, *, by: str, role: str) -> None:
        """Remove a model's policy; raise :class:`NotFound`."""
        with self._database.write() as connection:
            if not retraining.drop_policy(connection, model):
                raise NotFound(f"no policy for {model[:64]!r}; see: serinus retrain policies")
            audit.record(
                connection, at_ms=self._clock(), actor=by, role=role,
                action="retrain.drop_policy", subject=model,
            )  # fmt: skip

    def watch(self) -> None:
        """Make the requests that are due, take back lost ones, roll out what may be."""
        with self._database.write() as connection:
            now = self._clock()
            self._take_back(connection, now)
            drifting = {
                alert.detail.get("model"): alert
                for alert in journal.open_alerts(connection, DRIFT)
                if alert.detail.get("kind") not in UNTRAINABLE
            }
            for row in retraining.policies(connection):
                alert = drifting.get(row.model)
                self._consider(connection, row, alert, now)
        self._roll_out()

    def _consider(
        self, connection: sa.Connection, row: StoredPolicy, alert: journal.Alert | None, now_ms: int
    ) -> None:
        policy = msgspec.convert(row, Policy, from_attributes=True)
        past = Past(
            unfinished=retraining.unfinished(connection, row.model),
            last_ms=retraining.last_ms(connection, row.model),
            since_ms=row.set_ms,
        )
        cause = rules.due(policy, past, now_ms, drifting=alert is not None)
        if cause is None:
            return
        text = f"every {policy.every_days:g} days" if cause == "schedule" else ""
        reason = alert.title if cause == "drift" and alert else text
        number = alert.alert if cause == "drift" and alert else None
        self._add(connection, policy, cause, reason, by=SERVER, role=SERVER, alert=number)

    def _roll_out(self) -> None:
        """Start rollouts of what was published and is listed, where the request asked for it."""
        with self._database.read() as connection:
            listed = releases.listing(connection)
            rows = [
                row
                for row in retraining.in_states(connection, ["published"])
                if row.automation == "rollout" and not row.rollout and listed.get(row.digest or "")
            ]
        for row in rows:
            try:
                rollout = self._rollouts.start(row.release or "", None, f"retraining {row.request}")
                name = rollout.rollout
            except Conflict as error:
                if row.progress != (said := f"not rolled out yet: {error}"):
                    self._note(row, progress=said)
                continue
            except SerinusError as error:
                name, said = "none", f"not rolled out: {error}"
                self._note(row, progress=said, rollout=name)
                continue
            self._note(row, rollout=name, progress=f"rollout {name}")

    def _note(self, row: StoredRequest, **values: Any) -> None:
        with self._database.write() as connection:
            retraining.change(connection, msgspec.structs.replace(row, **values))
            said = str(values.get("progress", ""))
            self._say(connection, row, said, self._clock())

    def _add(
        self,
        connection: sa.Connection,
        policy: Policy,
        cause: Cause,
        reason: str,
        *,
        by: str,
        role: str,
        alert: int | None,
    ) -> StoredRequest:
        now = self._clock()
        row = StoredRequest(
            request=0,
            model=policy.model,
            state=rules.first_state(policy.automation, cause),
            cause=cause,
            reason=reason,
            alert=alert,
            automation=policy.automation,
            asked_ms=now,
            asked_by=by,
        )
        made = msgspec.structs.replace(row, request=retraining.add(connection, row))
        said = f"asked for by {by}: {reason}" if reason else f"asked for by {by}"
        self._say(connection, made, said, now)
        self._record(connection, made, "retrain.ask", now, by=by, role=role)
        return made

    def _move(
        self, number: int, states: Sequence[str], state: str, said: str, *, by: str, role: str
    ) -> StoredRequest:
        with self._database.write() as connection:
            now = self._clock()
            row = _require(connection, number)
            if row.state not in states:
                raise Conflict(f"request {number} is {row.state}: that means nothing now")
            ended = now if state in ENDED else None
            moved = msgspec.structs.replace(
                row, state=state, finished_ms=ended, lease=None, leased_until_ms=None,
                outcome=said if ended else "",
            )  # fmt: skip
            retraining.change(connection, moved)
            self._say(connection, moved, f"{said} by {by}", now)
            self._record(connection, moved, f"retrain.{state}", now, by=by, role=role)
            return moved

    def _take_back(self, connection: sa.Connection, now_ms: int) -> None:
        """Requests whose worker fell silent are given out again, so often."""
        for row in retraining.in_states(connection, ["taken"]):
            if row.leased_until_ms is not None and row.leased_until_ms >= now_ms:
                continue
            state = rules.lost(row.attempts)
            said = f"{row.worker} fell silent ({row.progress})"
            back = msgspec.structs.replace(row, state=state, lease=None, leased_until_ms=None)
            if state == "failed":
                back = msgspec.structs.replace(
                    back, finished_ms=now_ms, outcome=f"{row.attempts} workers fell silent"
                )
                self._ended(connection, back, now_ms)
            retraining.change(connection, back)
            self._say(connection, back, said, now_ms)

    def _ended(self, connection: sa.Connection, row: StoredRequest, now_ms: int) -> None:
        """Tell how a request ended; what was refused, or failed, needs a person."""
        if row.state in ("published", "unchanged"):
            journal.close_alert(connection, now_ms, RETRAINING, row.model)
            self._say(connection, row, f"{row.state}: {row.outcome}", now_ms)
            return
        title = f"training {row.model} again was {row.state}: {row.outcome}"
        detail = _detail(row) | {"severity": "page", "gates": row.gates}
        journal.open_alert(connection, now_ms, RETRAINING, row.model, title, detail)
        journal.add_event(connection, now_ms, RETRAINING, row.model, title, detail)

    def _say(self, connection: sa.Connection, row: StoredRequest, text: str, now_ms: int) -> None:
        said = f"request {row.request}: {text}"
        journal.add_event(connection, now_ms, RETRAINING, row.model, said, _detail(row))

    def _record(
        self,
        connection: sa.Connection,
        row: StoredRequest,
        action: str,
        now_ms: int,
        *,
        by: str,
        role: str,
    ) -> None:
        audit.record(
            connection, at_ms=now_ms, actor=by, role=role, action=action,
            subject=f"{row.model} {row.request}", detail={"outcome": row.outcome},
        )  # fmt: skip

    def _held(self, connection: sa.Connection, number: int, lease: str) -> StoredRequest:
        row = _require(connection, number)
        if (
            row.state != "taken"
            or row.lease is None
            or not secrets.compare_digest(row.lease, lease)
        ):
            raise Conflict(f"request {number} is {row.state} and not yours any more: leave it")
        return row


def _detail(row: StoredRequest) -> dict[str, Any]:
    return {"request": row.request, "model": row.model, "release": row.release}


def _shown(row: StoredRequest) -> StoredRequest:
    """Without what only its worker may know."""
    return msgspec.structs.replace(row, lease=None)


def _check(result: Result) -> None:
    if result.state not in RESULTS:
        raise InvalidRequest(f"state {result.state[:64]!r} is not one of {', '.join(RESULTS)}")
    if result.state == "published" and not (result.release and result.digest):
        raise InvalidRequest("what was published has a release and a digest")


def _require(connection: sa.Connection, number: int) -> StoredRequest:
    row = retraining.one(connection, number)
    if row is None:
        raise NotFound(f"no request {number}; see: serinus retrain list")
    return row
