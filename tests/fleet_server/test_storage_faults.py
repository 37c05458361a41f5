"""A disk that is full, a file that another holds, a database server that dies: all of it passes."""

import contextlib
import gc
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from edge_core.messages.telemetry import Cost
from edge_core.release import ReleaseRef
from fleet_server.storage import windows
from fleet_server.storage.database import Database
from tests.faults.limits import small_disk
from tests.simulators.cluster import Cluster
from tests.simulators.device import SimulatedDevice
from tests.simulators.postgres import PostgresServer, running
from tests.simulators.processes import wait_for
from tests.simulators.server import FleetServer

SENT = 20
ROWS = 10
SPARE = 8192
"""Bytes that the full disk has left: not enough for one transaction."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "disk"
    try:
        with small_disk(place):
            yield place
    except PermissionError:
        pytest.skip("mounting is not allowed here")


def joined(server: FleetServer) -> SimulatedDevice:
    """A device that the server knows."""
    world = server.world("1.0.0", lambda *_: 1.0)
    device = SimulatedDevice("d1", "left", world, server.mqtt_port, seed=1)
    wait_for(lambda: bool(server.client.devices()), seconds=10, what="the device")
    return device


def send(device: SimulatedDevice, ref: ReleaseRef) -> None:
    for _ in range(SENT):
        device.send(device.window(ref, rows=ROWS, cost=Cost()))


def stored(server: FleetServer) -> int:
    return int(server.rows("SELECT coalesce(sum(rows), 0) FROM totals WHERE device = 'd1'")[0][0])


def order(server: FleetServer) -> httpx.Response:
    """Ask for something that has to be written."""
    token = (server.data / "operator.token").read_text().strip()
    return httpx.post(
        f"{server.url}/api/v1/devices/d1/commands",
        json={"kind": "fallback_on", "model": "tiny-motion"},
        headers={"Authorization": f"Bearer {token}"},
        timeout=40,
    )


def refused(answer: httpx.Response, says: str) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.json()["detail"]


def fill(filler: Path) -> None:
    """Leave next to nothing; the server takes some of the room meanwhile."""
    with contextlib.suppress(OSError), filler.open("wb") as stream:
        while True:
            room = os.statvfs(filler.parent)
            left = room.f_bavail * room.f_frsize - SPARE
            if left <= 0:
                return
            stream.write(b"x" * min(left, 65536))
            stream.flush()


def test_a_full_disk_loses_nothing(disk: Path) -> None:
    with FleetServer(disk / "server") as server:
        ref = server.publish("1.0.0")
        device = joined(server)
        filler = disk / "filler"
        fill(filler)
        try:
            send(device, ref)
            server.process.wait_for_text("ingest: waiting: ", seconds=30)
            assert "full" in server.process.text()
            refused(order(server), "full")
            assert server.client.fleet()["rejected"] == 0, "reading goes on"
            assert stored(server) < SENT * ROWS
            filler.unlink()
            wait_for(lambda: stored(server) == SENT * ROWS, seconds=30, what="every window")
        finally:
            device.stop()
        assert order(server).status_code < 300


def test_a_file_that_another_program_locks_is_waited_for(tmp_path: Path) -> None:
    with FleetServer(tmp_path / "server") as server:
        ref = server.publish("1.0.0")
        device = joined(server)
        other = sqlite3.connect(server.data / "serinus.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            send(device, ref)
            refused(order(server), "locked")
            server.process.wait_for_text("ingest: waiting: ", seconds=30)
            assert server.client.releases(), "reading goes on"
            assert stored(server) == 0
            other.execute("ROLLBACK")
            wait_for(lambda: stored(server) == SENT * ROWS, seconds=30, what="every window")
        finally:
            device.stop()
            other.close()


@pytest.fixture
def postgres_of_our_own() -> Iterator[PostgresServer]:
    with running() as found:
        yield found
    gc.collect()


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_database_server_that_dies_loses_nothing(
    postgres_of_our_own: PostgresServer, tmp_path: Path
) -> None:
    server = postgres_of_our_own
    with Cluster(tmp_path, server.new_database()) as cluster:
        member = cluster.add("all", "api", "ingest", "decide")
        client = cluster.client(member)
        ref = cluster.publish("1.0.0", client)
        world = FleetServer.world(cluster, "1.0.0", lambda *_: 1.0)  # type: ignore[arg-type]
        server.kill()
        device = SimulatedDevice("d1", "left", world, cluster.mqtt_port, seed=1)
        send(device, ref)
        answer = httpx.get(
            f"{client.url}/api/v1/fleet", headers={"Authorization": "Bearer x"}, timeout=40
        )
        refused(answer, "database")
        page = httpx.get(f"{client.url}/", headers={"Cookie": "serinus_session=x"}, timeout=40)
        assert page.status_code == 503
        assert "The database cannot be used now" in page.text
        member.process.wait_for_text("ingest: waiting: ", seconds=30)
        server.start_again()
        database = Database.at(cluster.url, tmp_path)

        def rows() -> int:
            with database.read() as connection:
                return windows.totals_of(connection, "d1", ref.digest, "incumbent").rows

        wait_for(lambda: rows() == SENT * ROWS, seconds=30, what="every window")
        device.stop()
        assert client.devices()
        database.close()
