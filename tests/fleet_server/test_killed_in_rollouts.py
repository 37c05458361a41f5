"""A server that is killed at every transition of a rollout goes on as if nothing had been.

Each transition of the table happens in a real server, on a real database and with a real broker,
and the server dies in it three times: before the commit, after it, and when the orders are sent.
"""

import contextlib
import json
import sqlite3
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from edge_core.messages.deployment import DesiredState
from edge_core.release import ReleaseRef
from fleet_server import config as configuration
from fleet_server.broker.process import Broker
from fleet_server.config import MqttConfig
from fleet_server.domain.rollout import FINISHED, TABLE, Event
from fleet_server.services.clock import wall_clock
from fleet_server.services.screening import EARLIEST_MS
from fleet_server.services.suite import DATABASE, Services
from tests.fleet_server.conftest import Repository
from tests.simulators import obeying_fleet
from tests.simulators.killed_server import Death, KilledServer, Point
from tests.simulators.obeying_fleet import ObeyingFleet
from tests.simulators.processes import free_port, wait_for
from tests.simulators.receiver import Receiver
from tests.simulators.rollout_before import (
    BETTER,
    BY_PEOPLE,
    CAUSES,
    EDGES,
    NAMES,
    ROLLOUT,
    Edge,
    RolloutBefore,
)

SETTINGS = """\
data_dir = "{folder}/data"
port = {port}
[mqtt]
broker = "external"
port = {mqtt_port}
[windows]
decide_every_seconds = 0.1
[repository]
path = "{repository}"
online_keys = "{repository}/../online"
check_every_seconds = 600
[webhooks]
private = true
"""
AT_ONCE = 3
"""Cases in their own threads; most of the time they wait."""
SECONDS = 30.0
PATHS = {Event.ROLL_BACK: "rollback"}
"""Where the API calls an event by another name."""
STEPS = (
    "SELECT state, stage, reason, deadline_from_ms, finished_ms FROM rollouts",
    "SELECT rollout, stage, started_ms, ended_ms, outcome, verdict FROM stages",
    "SELECT rollout, stage, device, role FROM assignments",
    "SELECT subject, text FROM events WHERE kind = 'rollout'",
    "SELECT kind, subject, closed_ms FROM alerts",
    "SELECT action, actor, subject FROM audit WHERE action LIKE 'rollout.%'",
    "SELECT device, revision, active, shadow, arm, rollout FROM desired",
    "SELECT model, digest, rollout FROM production",
)
"""What a transition changes, and nothing else does meanwhile."""
ONCE = (
    "SELECT kind, subject, text FROM events WHERE kind IN ('rollout', 'incident')",
    "SELECT kind, subject FROM incidents",
    "SELECT action, subject FROM audit WHERE action LIKE 'rollout.%'",
    "SELECT webhook, event FROM deliveries",
    "SELECT incident, source, subject, text FROM incident_entries",
)
"""What may not be there twice."""


Facts = dict[str, list[tuple[Any, ...]]]


class Case:
    """One transition: brought about, and died in."""

    def __init__(
        self, folder: Path, repository: Repository, refs: tuple[ReleaseRef, ...], edge: Edge
    ) -> None:
        self.state, self.event = edge
        self.folder = folder
        self.newest = refs[-1]
        self.port, self.mqtt_port = free_port(), free_port()
        (folder / "data").mkdir(parents=True)
        settings = folder / "server.toml"
        settings.write_text(
            SETTINGS.format(
                folder=folder,
                port=self.port,
                mqtt_port=self.mqtt_port,
                repository=repository.folder,
            )
        )
        self.config = configuration.load(settings)
        self.server = KilledServer(settings, folder / "server.log")
        self.starts = 0
        self.key = str(uuid.uuid4())
        self.before = RolloutBefore(self.config, refs, edge)
        self.services = self.before.fleet.services

    def run(self) -> None:
        """Die in the transition at every point, then go on to the end."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.services.database.close)
            self.hook = stack.enter_context(Receiver())
            broker = Broker(MqttConfig(port=self.mqtt_port), self.folder)
            stack.callback(broker.stop)
            broker.start()
            obeying_fleet.begin_session(self.mqtt_port, self.config.mqtt.client_id)
            self.devices = stack.enter_context(ObeyingFleet(self.mqtt_port))
            stack.callback(self.server.kill)
            self._come()
            self._die()
            self._go_on()
            self._check()

    def _come(self) -> None:
        self.token = self.services.tokens.create("eve", "operator")
        self.services.webhooks.create(
            "hook", self.hook.url, ["rollout", "incident"], by="ann", role="operator"
        )
        self.before.come()
        orders = self.services.desired.to_send()
        self.devices.hold(orders)
        self.services.desired.sent(orders)
        self.services.desired.delivered([(order.device, order.revision) for order in orders])

    def _die(self) -> None:
        before, orders = self._facts(), obeying_fleet.held(self.mqtt_port)
        moved_ms = self._rows("SELECT deadline_from_ms FROM rollouts")[0][0]
        whole = self._rehearse()

        self._live_until("uncommitted", moved_ms)
        assert self._facts() == before
        assert obeying_fleet.held(self.mqtt_port) == orders

        self._live_until("committed", moved_ms)
        after = self._facts()
        assert timeless(after) == timeless(whole)
        ((state,),) = self._rows(f"SELECT state FROM rollouts WHERE rollout = '{ROLLOUT}'")
        assert state == TABLE[self.state][self.event]
        assert obeying_fleet.held(self.mqtt_port) == orders

        if self.services.desired.to_send():
            self._live_until("sent", moved_ms)
            assert self._facts() == after
            wished = self._wished()
            for device, found in obeying_fleet.held(self.mqtt_port).items():
                assert found == orders[device] or identity(found) == wished[device]

    def _rehearse(self) -> Facts:
        """Carry the transition out in a copy of the database, without a death."""
        copy = self.folder / "rehearsed"
        copy.mkdir()
        with self._database() as source, sqlite3.connect(copy / DATABASE) as target:
            source.backup(target)
        config = msgspec.structs.replace(self.config, data_dir=str(copy))
        services = Services.open(config, wall_clock)
        rollouts = services.rollouts
        if self.event is Event.SUPERSEDE:
            rollouts.start(self.newest.name, None, "eve", supersede=True)
        elif self.event in BY_PEOPLE:
            getattr(rollouts, self.event.value)(ROLLOUT, "eve", "")
        else:
            rollouts.decide()
        services.database.close()
        return self._facts(copy)

    def _live_until(self, point: Point, moved_ms: int) -> None:
        """Start a server, do what people do in this transition, and see it die."""
        self._start(Death(point, ROLLOUT, moved_ms))
        if self.event in BY_PEOPLE and point != "sent":
            with contextlib.suppress(httpx.TransportError):
                answer = self._steer(str(uuid.uuid4()) if point == "uncommitted" else self.key)
                raise AssertionError(f"a server that should die answers: {answer.text}")
        self.server.wait_for_death(SECONDS)

    def _start(self, death: Death | None = None) -> None:
        self.server.start(death)
        self.starts += 1
        if death is None or self.event in BY_PEOPLE:
            wait_for(self._listens, seconds=SECONDS, what="a server that listens")

    def _listens(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{self.port}/healthz").status_code < 500
        return not self.server.running  # it died already

    def _steer(self, key: str) -> httpx.Response:
        if self.event is Event.SUPERSEDE:
            return self._post("rollouts", key, release=self.newest.name, supersede=True)
        what = PATHS.get(self.event, self.event.value)
        return self._post(f"rollouts/{ROLLOUT}/{what}", key)

    def _post(self, path: str, key: str, **body: Any) -> httpx.Response:
        return httpx.post(
            f"http://127.0.0.1:{self.port}/api/v1/{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.token}", "Idempotency-Key": key},
            timeout=SECONDS,
        )

    def _go_on(self) -> None:
        """Let a server live, devices obey, and people do what is left to them, to the end."""
        self._start()
        if self.event in BY_PEOPLE:
            again = self._steer(self.key)
            assert (again.status_code, "carried out" in again.text) == (409, True), again.text
        self.before.clock.now = time.time_ns() // 1_000_000
        self.before.fleet.say = self.devices.publish  # type: ignore[method-assign]
        self.devices.obey()
        pushed = set[tuple[str, str, int]]()

        def ended() -> bool:
            assert self.server.running
            found = self.services.rollouts.every()
            for row in found:
                place = (row.rollout, row.state, len(row.stages))
                if place not in pushed:
                    pushed.add(place)
                    self._push(row.rollout, row.state)
            return all(row.state in FINISHED for row in found)

        wait_for(ended, seconds=SECONDS, what="the rollout's end")
        wait_for(self._is_quiet, seconds=SECONDS, what="orders and news to be taken")

    def _push(self, rollout: str, state: str) -> None:
        """What a rollout waits for: evidence, or people; the one that took over is not wanted."""
        if state in ("paused", "inconclusive") or (rollout, state) == ("r2", "running"):
            assert self._post(f"rollouts/{rollout}/rollback", f"{rollout}-back").is_success
        elif state == "running":
            self.before.fleet.speak(rollout, **BETTER)
        elif state == "needs_approval":
            assert self._post(f"rollouts/{rollout}/approvals", f"{rollout}-approve").is_success

    def _is_quiet(self) -> bool:
        """Whether every order is done and every event is told."""
        waiting = self._rows("SELECT count(*) FROM deliveries WHERE state != 'delivered'")
        unread = self._rows(
            "SELECT count(*) FROM events, cursors WHERE cursors.reader IN ('webhooks', 'incidents')"
            " AND events.event > cursors.last"
        )
        undone = self._rows(
            "SELECT count(*) FROM desired JOIN devices USING (device)"
            " WHERE NOT confirmed_sent OR revision != desired_revision"
        )
        return waiting == unread == undone == [(0,)]

    def _check(self) -> None:
        """Nothing is lost, doubled, or ordered in another way than it is stored."""
        ends = self._rows("SELECT state FROM rollouts ORDER BY rollout")
        assert ends[0] == (self._end(),)
        wished = self._wished()
        assert {d: identity(o) for d, o in obeying_fleet.held(self.mqtt_port).items()} == wished
        assert set(wished) == set(NAMES)
        newest: dict[str, tuple[int, Any]] = {}
        for device, order in self.devices.said:
            before = newest.get(device, (0, None))
            said = (order.revision, identity(order))
            assert said[0] > before[0] or said == before, f"{device}: {before}, then {said}"
            newest[device] = said
        assert self._rows("SELECT epoch FROM leadership") == [(self.starts,)]
        assert self.services.audit_log.verify().holds
        for once in ONCE:
            doubled = [row for row, count in Counter(self._rows(once)).items() if count > 1]
            assert not doubled, once
        told = {json.loads(got.body)["data"]["event"] for got in self.hook.got}
        noted = self._rows("SELECT event FROM events WHERE kind IN ('rollout', 'incident')")
        assert {(event,) for event in told} == set(noted)
        messages = {
            (got.headers["webhook-id"], json.loads(got.body)["data"]["event"])
            for got in self.hook.got
        }
        assert len(messages) == len(told), "an event has one message, however often it is sent"

    def _end(self) -> str:
        """How the rollout ends from where the transition leads to."""
        to = TABLE[self.state][self.event]
        if to in ("paused", "inconclusive", "rolling_back"):
            return "rolled_back"
        return to if to in FINISHED else "promoted"

    def _facts(self, data: Path | None = None) -> Facts:
        return {query: sorted(self._rows(query, data), key=repr) for query in STEPS}

    def _wished(self) -> dict[str, Any]:
        columns = "device, revision, active, shadow, arm, rollout"
        return {row[0]: row[1:] for row in self._rows(f"SELECT {columns} FROM desired")}

    def _rows(self, query: str, data: Path | None = None) -> list[Any]:
        with self._database(data) as connection:
            return connection.execute(query).fetchall()

    def _database(self, data: Path | None = None) -> contextlib.closing[sqlite3.Connection]:
        file = (data or self.config.data) / DATABASE
        return contextlib.closing(sqlite3.connect(file, timeout=10))


def identity(order: DesiredState) -> tuple[Any, ...]:
    """What an order says, without when."""
    active, shadow = (ref.digest if ref else None for ref in (order.active, order.shadow))
    return order.revision, active, shadow, order.arm, order.rollout


def timeless(facts: Facts) -> Facts:
    """The same, with one moment for all that are not the beginning of time."""
    return {
        query: sorted(
            [tuple("then" if is_moment(value) else value for value in row) for row in rows],
            key=repr,
        )
        for query, rows in facts.items()
    }


def is_moment(value: object) -> bool:
    """Whether a number is of milliseconds since 1970."""
    return isinstance(value, int) and value > EARLIEST_MS


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Edge, Future[None]]]:
    """Every transition, each in a folder of its own; a few at once."""
    folder = tmp_path_factory.mktemp("killed")
    repository = Repository(folder)
    refs = tuple(repository.publish(f"1.{n}.0", seed=n) for n in range(3))

    opening = threading.Lock()  # alembic keeps its context in a module

    def run(edge: Edge) -> None:
        with opening:
            case = Case(folder / "-".join(edge), repository, refs, edge)
        case.run()

    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        yield {edge: pool.submit(run, edge) for edge in EDGES}
    finally:
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("edge", EDGES, ids="-".join)
def test_a_server_killed_in_a_transition_goes_on_to_the_same_end(
    cases: dict[Edge, Future[None]], edge: Edge
) -> None:
    cases[edge].result()


def test_every_transition_is_tried() -> None:
    assert set(CAUSES) == set(EDGES)
