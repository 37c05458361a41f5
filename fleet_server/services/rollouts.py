"""Rollouts: started and steered by people, moved by verdicts. One transaction for each move."""

import secrets
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import sqlalchemy as sa

from edge_core.errors import InvalidConfiguration
from fleet_server.domain import plan as plans
from fleet_server.domain import rollout as table
from fleet_server.domain.plan import DEFAULT_PLAN, Plan
from fleet_server.domain.rollout import FINISHED, Event
from fleet_server.services import contracts, desired, forecast, rollout_devices, stages
from fleet_server.services.catalog import Catalog, Release
from fleet_server.services.clock import Clock
from fleet_server.services.errors import Conflict, InvalidRequest, NotFound
from fleet_server.services.forecast import Forecast
from fleet_server.services.listening import Listening
from fleet_server.services.rollout_devices import RolloutDevice
from fleet_server.services.rollout_views import RolloutView, rollout_view
from fleet_server.services.stages import Course
from fleet_server.services.uncollected import uncollected
from fleet_server.storage import audit, devices, journal, releases, rollouts
from fleet_server.storage.database import Database
from fleet_server.storage.rollouts import StoredRollout

STRAGGLER_ATTEMPTS = 6
STRAGGLER_SECONDS = 900.0
"""A device that failed outside of a rollout is asked again so often, ever more rarely."""

MOST_SHOWN = 1000


class Rollouts:
    """Use cases on rollouts. ``changed`` is set whenever somebody steered one."""

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        clock: Clock,
        listening: Listening,
        salt: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._clock = clock
        self._listening = listening
        self._salt = salt
        self.changed = threading.Event()

    def every(
        self, limit: int = MOST_SHOWN, after: tuple[int, str] | None = None
    ) -> list[RolloutView]:
        """Rollouts, newest first; ``after`` are one's time of creation and name."""
        with self._database.read() as connection:
            found = rollouts.latest(connection, limit, after)
            return [rollout_view(connection, row) for row in found]

    def one(self, rollout: str) -> RolloutView:
        """One rollout; raise :class:`NotFound` where there is none."""
        with self._database.read() as connection:
            return rollout_view(connection, _require(connection, rollout))

    def start(
        self,
        release: str,
        changes: dict[str, Any] | None,
        by: str,
        *,
        role: str = "operator",
        supersede: bool = False,
    ) -> RolloutView:
        """Start a rollout of ``model@version``.

        Args:
            release: name of an approved release.
            changes: settings that differ from the default plan.
            by: who asked for it.
            role: theirs.
            supersede: let it take over from a rollout of its model that has not ended.

        Raises:
            InvalidRequest: the name or the plan is not valid.
            NotFound: the release was never approved.
            Conflict: it is revoked, in production already, no device could run it, a consumer has
                not acknowledged that it breaks its output, or another rollout of its model has not
                ended.
        """
        plan = _plan(changes)
        with self._database.write() as connection:
            now = self._clock()
            found = self._catalog.by_name(connection, release)
            if supersede:
                self._supersede(connection, found, by, role, now)
            row = self._new_row(connection, found, plan, by, now)
            course = self._course(connection, row, now)
            agreed = contracts.check(connection, found, course.incumbent)
            if not stages.eligible(connection, course):
                raise Conflict(
                    f"no device could run {found.ref.name}: none that runs no other model and is "
                    "in no other rollout has reported a target of "
                    f"{', '.join(sorted(found.targets))}"
                )
            rollouts.add(connection, row)
            stages.close_older(connection, row, now)
            text = f"rollout {row.rollout} started by {by}"
            if agreed.breaks and agreed.undeclared:
                text += f"; it breaks its output, and nobody asked {', '.join(agreed.undeclared)}"
            journal.add_event(connection, now, "rollout", found.ref.name, text)
            _record(connection, row, "start", now, by, role, {"release": found.ref.name})
            if row.state == "running":
                stages.begin(connection, course, now)
            view = rollout_view(connection, row)
        self.changed.set()
        return view

    def check(self, release: str, changes: dict[str, Any] | None) -> Forecast:
        """What a rollout would do now, without starting it; raises as :meth:`start`.

        A rollout of the model that has not ended is looked past.
        """
        plan = _plan(changes)
        with self._database.read() as connection:
            now = self._clock()
            found = self._catalog.by_name(connection, release)
            row = self._new_row(connection, found, plan, "", now, alone=False)
            course = self._course(connection, row, now)
            agreed = contracts.check(connection, found, course.incumbent)
            return forecast.of(connection, course, agreed)

    def pause(self, rollout: str, by: str, reason: str, *, role: str = "operator") -> RolloutView:
        """Hold a rollout where it is; raise :class:`Conflict` in a state that cannot."""
        return self._steer(rollout, Event.PAUSE, f"paused by {by}", reason, by, role)

    def resume(self, rollout: str, by: str, reason: str, *, role: str = "operator") -> RolloutView:
        """Go on with a paused or inconclusive rollout."""
        return self._steer(rollout, Event.RESUME, f"resumed by {by}", reason, by, role)

    def roll_back(
        self, rollout: str, by: str, reason: str, *, role: str = "operator"
    ) -> RolloutView:
        """Put every device back on the release it had before."""
        return self._steer(rollout, Event.ROLL_BACK, f"rolled back by {by}", reason, by, role)

    def abort(self, rollout: str, by: str, reason: str, *, role: str = "operator") -> RolloutView:
        """End a rollout where it is: devices that run the candidate keep it, no other follows."""
        return self._steer(rollout, Event.ABORT, f"aborted by {by}", reason, by, role)

    def approve(self, rollout: str, by: str, note: str, *, role: str = "approver") -> RolloutView:
        """Approve what follows the present stage.

        Raises:
            NotFound: there is no such rollout.
            Conflict: it does not wait for approval, the person has started it or has approved, or
                a consumer was declared meanwhile and has not acknowledged what it breaks.
        """
        with self._database.write() as connection:
            now = self._clock()
            row = _require(connection, rollout)
            if row.state != "needs_approval":
                state = row.state.replace("_", " ")
                raise Conflict(f"rollout {rollout} is {state}: nothing waits for approval")
            if by == row.created_by:
                raise Conflict(f"{by} started rollout {rollout}: somebody else has to approve it")
            course = self._course(connection, row, now)
            contracts.check(connection, course.candidate, course.incumbent)
            begun = rollouts.has_begun(connection, rollout, row.stage)
            following = row.stage + 1 if begun else row.stage
            if not rollouts.approve(connection, rollout, following, by, now, note):
                raise Conflict(f"{by} has approved it already")
            name = releases.names(connection)[row.digest]
            said = f"approved by {by}: {note}" if note else f"approved by {by}"
            journal.add_event(connection, now, "rollout", name, said)
            _record(connection, row, "approve", now, by, role, {"stage": following, "note": note})
            view = rollout_view(connection, row)
        self.changed.set()
        return view

    def release_holdout(self, rollout: str, by: str, *, role: str = "operator") -> RolloutView:
        """Let the held-out devices of a finished rollout follow it; raise :class:`Conflict`."""
        with self._database.write() as connection:
            now = self._clock()
            row = _require(connection, rollout)
            if row.state != "promoted":
                raise Conflict(f"rollout {rollout} is not promoted: there is nothing to follow")
            freed = rollouts.release_holdout(connection, rollout)
            if not freed:
                raise Conflict(f"rollout {rollout} holds no device out any more")
            course = self._course(connection, row, now)
            stages.order(connection, course, stages.eligible(connection, course), now)
            text = f"{by} lets {len(freed)} held-out devices follow"
            journal.add_event(connection, now, "rollout", course.name, text)
            _record(connection, row, "release_holdout", now, by, role, {"devices": len(freed)})
            view = rollout_view(connection, row)
        self.changed.set()
        return view

    def devices(self, rollout: str, after: str, limit: int) -> list[RolloutDevice]:
        """Devices of a rollout by name: role, what they should run and do, and why they wait."""
        with self._database.read() as connection:
            row = _require(connection, rollout)
            now = self._clock()
            return rollout_devices.of(connection, self._course(connection, row, now), after, limit)

    def decide(self) -> None:
        """Judge every rollout that has not ended, and move it where its verdict says.

        Devices that failed after theirs had ended are asked again.
        """
        with self._database.read() as connection:
            running = [row.rollout for row in rollouts.unfinished(connection)]
        self._ask_stragglers()
        for rollout in running:
            with uncollected(), self._database.write() as connection:
                row = rollouts.one(connection, rollout)
                if row is None or row.finished_ms is not None:
                    continue  # somebody ended it in between
                now = self._clock()
                course = self._course(connection, row, now)
                if not self._held(connection, course, now):
                    stages.advance(connection, course, now, self._listening.since_ms())

    def _held(self, connection: sa.Connection, course: Course, now_ms: int) -> bool:
        """Pause a rollout that breaks its output for a consumer that was declared meanwhile."""
        row = course.row
        missing = contracts.agreement(connection, course.candidate, course.incumbent).missing
        if row.state != "running" or not missing:
            return False
        following = table.apply(table.known(row.state), Event.PAUSE)
        assert following is not None, "what runs can be paused"
        text = f"paused: {', '.join(missing)} has not acknowledged that it breaks its output"
        transition = table.Transition(Event.PAUSE, following, row.stage, text)
        stages.move(connection, course, transition, None, now_ms)
        return True

    def _ask_stragglers(self) -> None:
        with self._database.read() as connection:
            failed = devices.failed_outside(connection)
        if failed:
            with self._database.write() as connection:
                known = [d for d in devices.named(connection, failed) if not d.retired]
                now = self._clock()
                desired.retry(connection, known, STRAGGLER_ATTEMPTS, STRAGGLER_SECONDS, now)

    def _new_row(
        self,
        connection: sa.Connection,
        found: Release,
        plan: Plan,
        by: str,
        now_ms: int,
        *,
        alone: bool = True,
    ) -> StoredRollout:
        """A rollout as it begins, not stored yet."""
        incumbent = self._incumbent(connection, found, alone=alone)
        chosen = plans.stages_for(plan, has_incumbent=incumbent is not None)
        if not chosen:
            raise InvalidRequest(
                f"{found.ref.name} is its model's first release and has nothing to run in the "
                "shadow of: add a canary or ramp stage to the plan"
            )
        return StoredRollout(
            rollout=f"r{rollouts.count(connection) + 1}",
            model=found.ref.model,
            digest=found.ref.digest,
            incumbent=incumbent,
            plan=msgspec.json.encode(plan),
            salt=self._salt(),
            state="needs_approval" if chosen[0].approvals else "running",
            stage=0,
            stage_started_ms=now_ms,
            deadline_from_ms=now_ms,
            created_ms=now_ms,
            created_by=by,
        )

    def _supersede(
        self, connection: sa.Connection, found: Release, by: str, role: str, now_ms: int
    ) -> None:
        """End the rollout of a release's model that has not ended, without giving any order."""
        for row in rollouts.unfinished(connection):
            if row.model != found.ref.model:
                continue
            following = table.apply(table.known(row.state), Event.SUPERSEDE)
            if following is None:
                raise Conflict(_refusal(row, Event.SUPERSEDE))
            text = f"superseded by {found.ref.name}, started by {by}"
            transition = table.Transition(Event.SUPERSEDE, following, row.stage, text)
            stages.move(connection, self._course(connection, row, now_ms), transition, None, now_ms)
            _record(connection, row, "supersede", now_ms, by, role, {"by": found.ref.name})

    def _steer(
        self, rollout: str, event: Event, what: str, reason: str, by: str, role: str
    ) -> RolloutView:
        with self._database.write() as connection:
            now = self._clock()
            row = _require(connection, rollout)
            following = table.apply(table.known(row.state), event)
            if following is None:
                raise Conflict(_refusal(row, event))
            text = f"{what}: {reason}" if reason else what
            transition = table.Transition(event, following, row.stage, text)
            course = self._course(connection, row, now)
            if event is Event.RESUME:
                contracts.check(connection, course.candidate, course.incumbent)
            stages.move(connection, course, transition, None, now)
            _record(connection, row, event.value, now, by, role, {"reason": reason})
            view = rollout_view(connection, _require(connection, rollout))
        self.changed.set()
        return view

    def _course(self, connection: sa.Connection, row: StoredRollout, now_ms: int) -> Course:
        candidate = self._catalog.require(connection, row.digest)
        incumbent = self._incumbent_ref(connection, row.incumbent)
        return Course.of(row, candidate, incumbent, now_ms)

    def _incumbent_ref(self, connection: sa.Connection, digest: str | None) -> Release | None:
        return None if digest is None else self._catalog.require(connection, digest)

    def _incumbent(self, connection: sa.Connection, release: Release, *, alone: bool) -> str | None:
        """Digest of what a new rollout would replace; ``alone`` refuses one beside another."""
        name, model = release.ref.name, release.ref.model
        if not release.listed:
            raise Conflict(f"{name} is no longer approved: publish a release that is")
        for row in rollouts.unfinished(connection):
            if alone and row.model == model:
                raise Conflict(
                    f"rollout {row.rollout} of {model} has not ended: wait, roll it "
                    "back, or let this one supersede it"
                )
        present = releases.in_production(connection).get(model)
        if present is not None and present.digest == release.ref.digest:
            raise Conflict(f"{name} is in production already")
        return None if present is None else present.digest


def _require(connection: sa.Connection, rollout: str) -> StoredRollout:
    row = rollouts.one(connection, rollout)
    if row is None:
        raise NotFound(f"no rollout {rollout[:64]!r}; see: serinus rollout list")
    return row


def _record(
    connection: sa.Connection,
    row: StoredRollout,
    what: str,
    now_ms: int,
    by: str,
    role: str,
    detail: dict[str, Any],
) -> None:
    audit.record(
        connection,
        at_ms=now_ms,
        actor=by,
        role=role,
        action=f"rollout.{what}",
        subject=row.rollout,
        detail=detail,
    )


def _plan(changes: dict[str, Any] | None) -> Plan:
    """The default plan with some settings replaced."""
    settings = msgspec.to_builtins(DEFAULT_PLAN) | (changes or {})
    try:
        return plans.parse(msgspec.json.encode(settings))
    except InvalidConfiguration as error:
        raise InvalidRequest(str(error)) from error


def _refusal(row: StoredRollout, event: Event) -> str:
    what = event.value.replace("_", " ")
    state = row.state.replace("_", " ")
    if row.state in FINISHED:
        return f"rollout {row.rollout} is {state}: it cannot {what} any more"
    return f"rollout {row.rollout} is {state}: it cannot {what} now"
