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
from fleet_server.services import stages
from fleet_server.services.catalog import Catalog, Release
from fleet_server.services.clock import Clock
from fleet_server.services.errors import Conflict, InvalidRequest, NotFound
from fleet_server.services.listening import Listening
from fleet_server.services.rollout_views import RolloutView, rollout_view
from fleet_server.services.stages import Course
from fleet_server.storage import journal, releases, rollouts
from fleet_server.storage.database import Database
from fleet_server.storage.rollouts import StoredRollout


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

    def every(self) -> list[RolloutView]:
        """All rollouts, newest first."""
        with self._database.read() as connection:
            return [rollout_view(connection, row) for row in rollouts.every(connection)]

    def one(self, rollout: str) -> RolloutView:
        """One rollout; raise :class:`NotFound` where there is none."""
        with self._database.read() as connection:
            return rollout_view(connection, _require(connection, rollout))

    def start(self, release: str, changes: dict[str, Any] | None, by: str) -> RolloutView:
        """Start a rollout of ``model@version``.

        Args:
            release: name of an approved release.
            changes: settings that differ from the default plan.
            by: who asked for it.

        Raises:
            InvalidRequest: the name or the plan is not valid.
            NotFound: the release was never approved.
            Conflict: it is revoked, in production already, no device could run it, or another
                rollout of its model has not ended.
        """
        plan = _plan(changes)
        with self._database.write() as connection:
            now = self._clock()
            found = self._catalog.by_name(connection, release)
            incumbent = self._incumbent(connection, found)
            if not plans.stages_for(plan, has_incumbent=incumbent is not None):
                raise InvalidRequest(
                    f"{found.ref.name} is its model's first release and has nothing to run in the "
                    "shadow of: add a canary or ramp stage to the plan"
                )
            row = StoredRollout(
                rollout=f"r{rollouts.count(connection) + 1}",
                model=found.ref.model,
                digest=found.ref.digest,
                incumbent=incumbent,
                plan=msgspec.json.encode(plan),
                salt=self._salt(),
                state="running",
                stage=0,
                stage_started_ms=now,
                deadline_from_ms=now,
                created_ms=now,
                created_by=by,
            )
            course = Course.of(row, found, self._incumbent_ref(connection, incumbent))
            if not stages.eligible(connection, course):
                raise Conflict(
                    f"no device could run {found.ref.name}: none that runs no other model and is "
                    "in no other rollout has reported a target of "
                    f"{', '.join(sorted(found.targets))}"
                )
            rollouts.add(connection, row)
            stages.close_older(connection, row, now)
            text = f"rollout {row.rollout} started by {by}"
            journal.add_event(connection, now, "rollout", found.ref.name, text)
            stages.begin(connection, course, now)
            view = rollout_view(connection, row)
        self.changed.set()
        return view

    def pause(self, rollout: str, by: str, reason: str) -> RolloutView:
        """Hold a rollout where it is; raise :class:`Conflict` in a state that cannot."""
        return self._steer(rollout, Event.PAUSE, f"paused by {by}", reason)

    def resume(self, rollout: str, by: str, reason: str) -> RolloutView:
        """Go on with a paused or inconclusive rollout."""
        return self._steer(rollout, Event.RESUME, f"resumed by {by}", reason)

    def roll_back(self, rollout: str, by: str, reason: str) -> RolloutView:
        """Put every device back on the release it had before."""
        return self._steer(rollout, Event.ROLL_BACK, f"rolled back by {by}", reason)

    def decide(self) -> None:
        """Judge every rollout that has not ended, and move it where its verdict says."""
        with self._database.read() as connection:
            running = [row.rollout for row in rollouts.unfinished(connection)]
        for rollout in running:
            with self._database.write() as connection:
                row = rollouts.one(connection, rollout)
                if row is None or row.finished_ms is not None:
                    continue  # somebody ended it in between
                course = self._course(connection, row)
                stages.advance(connection, course, self._clock(), self._listening.since_ms())

    def _steer(self, rollout: str, event: Event, what: str, reason: str) -> RolloutView:
        with self._database.write() as connection:
            row = _require(connection, rollout)
            following = table.apply(table.known(row.state), event)
            if following is None:
                raise Conflict(_refusal(row, event))
            text = f"{what}: {reason}" if reason else what
            transition = table.Transition(event, following, row.stage, text)
            course = self._course(connection, row)
            stages.move(connection, course, transition, None, self._clock())
            view = rollout_view(connection, _require(connection, rollout))
        self.changed.set()
        return view

    def _course(self, connection: sa.Connection, row: StoredRollout) -> Course:
        candidate = self._catalog.require(connection, row.digest)
        return Course.of(row, candidate, self._incumbent_ref(connection, row.incumbent))

    def _incumbent_ref(self, connection: sa.Connection, digest: str | None) -> Release | None:
        return None if digest is None else self._catalog.require(connection, digest)

    def _incumbent(self, connection: sa.Connection, release: Release) -> str | None:
        """Digest of what a new rollout would replace."""
        name, model = release.ref.name, release.ref.model
        if not release.listed:
            raise Conflict(f"{name} is no longer approved: publish a release that is")
        for row in rollouts.unfinished(connection):
            if row.model == model:
                raise Conflict(
                    f"rollout {row.rollout} of {model} has not ended: wait, or roll it back first"
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
