"""Who decides: one at a time, whoever dies or stops, and nothing by one that was replaced."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_core.errors import Unavailable
from fleet_server.services.clock import wall_clock
from fleet_server.services.leading import Leading
from fleet_server.storage import audit, engines, leadership
from fleet_server.storage.database import Database
from fleet_server.storage.leadership import NotLeading
from tests.simulators.postgres import PostgresServer
from tests.simulators.processes import wait_for

BACKENDS = ("sqlite", "postgresql")
LEASE_MS = 1000


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    found = postgres.new_database()
    yield found
    postgres.drop(found)


def decide(database: Database, leading: Leading, who: str, wait: Callable[[], None]) -> None:
    """Take the next decision: read how many there are, wait, write one more."""
    with database.fenced(leading.check), database.write() as connection:
        number = len(list(audit.every(connection)))
        wait()
        audit.record(
            connection,
            at_ms=0,
            actor=who,
            role="server",
            action="decide",
            subject=str(number),
        )


def decisions(database: Database) -> list[tuple[str, str]]:
    with database.read() as connection:
        return [(entry.subject, entry.actor) for entry in audit.every(connection)]


def test_who_was_replaced_writes_nothing(database: Database, clock: Any) -> None:
    first, second = Leading(database, clock), Leading(database, clock)
    assert first.lead()
    decide(database, first, "first", lambda: None)
    with database.write() as connection:
        second._epoch = leadership.take_over(connection, "second", clock())
    assert first.leads, "it does not know yet"
    assert not first.confirmed()
    with pytest.raises(NotLeading, match="second decides now"):
        decide(database, first, "first", lambda: None)
    decide(database, second, "second", lambda: None)
    assert decisions(database) == [("0", "first"), ("1", "second")]
    clock.now += 60_000
    assert second.lead(), "it renews"
    with database.write() as connection:
        audit.record(connection, at_ms=0, actor="a person", role="operator", action="", subject="2")
    assert len(decisions(database)) == 3, "only the deciding threads are fenced"
    first.release()
    second.release()


def test_one_leads_until_it_lets_go(url: str, tmp_path: Path) -> None:
    databases = [Database.at(url, tmp_path) for _ in range(2)]
    one, two = (Leading(database, wall_clock) for database in databases)
    assert (one.lead(), two.lead()) == (True, False)
    assert (one.lead(), two.lead()) == (True, False)
    one.release()
    assert (two.lead(), one.lead()) == (True, False)
    assert two.epoch == 2
    two.release()
    for database in databases:
        database.close()


def test_who_dies_is_replaced_at_once(url: str, tmp_path: Path) -> None:
    database = Database.at(url, tmp_path)
    process, pipe = started(url, tmp_path, pause=False)
    leading = Leading(database, wall_clock)
    assert pipe.recv() == "leads"
    assert not leading.lead()
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    wait_for(leading.lead, seconds=5, what="the lock of a dead process")
    assert leading.epoch == 2
    leading.release()
    database.close()


@pytest.mark.parametrize("pause", [False, True], ids=["between", "within a transaction"])
def test_who_stops_is_replaced_and_decides_nothing_when_it_moves_again(
    url: str, tmp_path: Path, pause: bool
) -> None:
    database = Database.at(url, tmp_path)
    process, pipe = started(url, tmp_path, pause=pause)
    leading = Leading(database, wall_clock, lease_ms=LEASE_MS)
    assert pipe.recv() == "leads"
    if pause:
        assert pipe.recv() == "within"
    os.kill(process.pid or 0, signal.SIGSTOP)
    try:
        time.sleep(0.3)
        before = decisions(database)

        def leads() -> bool:
            try:
                return leading.lead()
            except Unavailable:  # the stopped one holds the writers' lock for a while
                return False

        wait_for(leads, seconds=30, what="a new leader")
        assert leading.epoch == 2
        decide(database, leading, "new", lambda: None)
    finally:
        os.kill(process.pid or 0, signal.SIGCONT)
    for _ in range(10):
        assert leading.lead()
        decide(database, leading, "new", lambda: None)
        time.sleep(0.1)
    assert pipe.poll(10)
    process.kill()
    process.join()
    told = []
    while pipe.poll():
        try:
            told.append(pipe.recv())
        except EOFError:
            break
    assert "refused" in told
    found = decisions(database)
    assert [subject for subject, _ in found] == [str(n) for n in range(len(found))], "none twice"
    assert {actor for _, actor in found[len(before) :]} == {"new"}
    leading.release()
    database.close()


def started(url: str, folder: Path, *, pause: bool) -> tuple[Any, Any]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_old_leader, args=(url, folder, theirs, pause), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _old_leader(url: str, folder: Path, pipe: Any, pause: bool) -> None:
    """Decide as fast as it goes; say what happens."""
    engines.IDLE_TIMEOUT_MS = 2000
    database = Database.at(url, folder)
    leading = Leading(database, wall_clock, lease_ms=LEASE_MS)
    assert leading.lead()
    pipe.send("leads")

    def wait() -> None:
        if pause:
            pipe.send("within")
            time.sleep(0.5)

    while True:
        try:
            if leading.lead():
                decide(database, leading, "old", wait)
        except (NotLeading, Unavailable) as error:
            pipe.send("refused")
            pipe.send(repr(error))
        else:
            if not leading.leads:
                pipe.send("refused")
        time.sleep(0.02)
