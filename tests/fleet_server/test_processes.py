"""Several processes serve one fleet: whichever dies or stops, nothing is lost or doubled."""

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import paho.mqtt.client as mqtt
import pytest
import sqlalchemy as sa
from paho.mqtt.enums import CallbackAPIVersion

from edge_core.messages import codec, topics
from edge_core.messages import windows as messages
from edge_core.messages.telemetry import ReportedState, StatsWindow
from edge_core.release import ReleaseRef
from fleet_client.client import FleetClient, Refused
from fleet_server.services.catalog import Catalog
from fleet_server.services.clock import wall_clock
from fleet_server.storage import leadership, tables, windows
from fleet_server.storage.database import Database
from tests.simulators.cluster import Cluster
from tests.simulators.postgres import PostgresServer
from tests.simulators.processes import wait_for
from tests.simulators.tiny_bundle import TARGET

DEVICES = 4
WINDOWS = 150


@pytest.fixture
def cluster(tmp_path: Path, postgres: PostgresServer) -> Iterator[Cluster]:
    url = postgres.new_database()
    with Cluster(tmp_path, url) as found:
        yield found
    postgres.drop(url)


@pytest.fixture
def database(cluster: Cluster, tmp_path: Path) -> Iterator[Database]:
    found = Database.at(cluster.url, tmp_path)
    yield found
    found.close()


class Sender:
    """Sends whatever it is given, at least once."""

    def __init__(self, port: int) -> None:
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="sender")
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def send(self, device: str, kind: str, payload: bytes) -> None:
        self._client.publish(topics.up(device, kind), payload, qos=1).wait_for_publish(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def traffic(database: Database, ref: ReleaseRef) -> list[tuple[str, bytes]]:
    """Windows of all devices, each device's in order, a third of them twice."""
    with database.read() as connection:
        schema = Catalog(database, wall_clock).require(connection, ref.digest).window_schema
    now, found, draw = wall_clock(), [], random.Random(3)
    for sequence in range(WINDOWS):
        for number in range(DEVICES):
            window = StatsWindow(
                device=f"d{number}",
                epoch="e",
                sequence=sequence,
                opened_ms=now - 1000,
                closed_ms=now,
                release=ref,
                target=TARGET,
                arm="incumbent",
                rows=3,
            )
            payload = codec.encode(messages.pack(window, schema))
            found += [(window.device, payload)] * (1 + (draw.random() < 1 / 3))
    return found


def sums(database: Database, ref: ReleaseRef) -> list[int]:
    with database.read() as connection:
        return [
            windows.totals_of(connection, f"d{number}", ref.digest, "incumbent").rows
            for number in range(DEVICES)
        ]


def leader(database: Database) -> leadership.Leader | None:
    with database.read() as connection:
        return leadership.present(connection)


def test_two_workers_one_killed_nothing_lost_and_nothing_doubled(
    cluster: Cluster, database: Database
) -> None:
    front = cluster.add("front", "api")
    cluster.add("a", "ingest", "decide")
    doomed = cluster.add("b", "ingest")
    ref = cluster.publish("1.0.0", cluster.client(front))
    sent = traffic(database, ref)
    sender = Sender(cluster.mqtt_port)
    for number, (device, payload) in enumerate(sent):
        sender.send(device, "stats", payload)
        if number == len(sent) // 3:
            doomed.process.kill()
    time.sleep(0.5)
    doomed.start()
    whole = [WINDOWS * 3] * DEVICES
    wait_for(lambda: sums(database, ref) == whole, seconds=30, what="every window")
    for device, payload in random.Random(5).sample(sent, 200):
        sender.send(device, "stats", payload)
    time.sleep(1.0)
    sender.close()
    assert sums(database, ref) == whole
    with database.read() as connection:
        assert set(windows.lost_windows(connection).values()) == {0}
        query = sa.select(sa.func.sum(tables.hours.c.rows), sa.func.sum(tables.hours.c.windows))
        rows, count = connection.execute(query).one()
    assert (int(rows), int(count)) == (WINDOWS * 3 * DEVICES, WINDOWS * DEVICES)
    shown = cluster.client(front).history(ref.model)
    assert sum(row["rows"] for row in shown) == WINDOWS * 3 * DEVICES


def started(client: FleetClient, ref: ReleaseRef) -> str:
    """A stopped process may hold the writers' lock until the database takes it from it."""
    found: list[str] = []

    def start() -> bool:
        try:
            found.append(client.start_rollout(ref.name)["rollout"])
        except Refused as error:
            if error.status != 503:
                raise
        return bool(found)

    wait_for(start, seconds=60, what="a database that can be written")
    return found[0]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_leader_that_dies_or_stops_is_replaced_and_its_rollout_goes_on_once(
    cluster: Cluster, database: Database, how: signal.Signals
) -> None:
    front = cluster.add("front", "api")
    first = cluster.add("a", "ingest", "decide")
    second = cluster.add("b", "ingest", "decide")
    client = cluster.client(front)
    before = leader(database)
    assert before is not None
    assert before.holder.endswith(f"process {first.process.pid}")
    ref = cluster.publish("1.0.0", client)
    sender = Sender(cluster.mqtt_port)
    state = ReportedState(device="d0", at_ms=wall_clock(), target=TARGET, runtime="none")
    sender.send("d0", "state", codec.encode(state))
    wait_for(lambda: bool(client.devices()), seconds=10, what="the device")
    first.process._child.send_signal(how)  # type: ignore[union-attr]
    rollout = started(client, ref)

    def replaced() -> bool:
        found = leader(database)
        return found is not None and found.epoch == before.epoch + 1

    wait_for(replaced, seconds=60, what="a new leader")
    found = leader(database)
    assert found is not None
    assert found.holder.endswith(f"process {second.process.pid}")

    def wanted() -> bool:
        with database.read() as connection:
            row = connection.execute(sa.select(tables.desired)).first()
        return row is not None and row.active == ref.digest and row.confirmed_sent

    wait_for(wanted, seconds=20, what="the desired state to be sent")
    answer = msgspec.structs.replace(state, active=ref, update="committed", desired_revision=1)
    sender.send("d0", "state", codec.encode(answer))
    if how == signal.SIGSTOP:
        first.process._child.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
        time.sleep(3)
        still = leader(database)
        assert still is not None
        assert still.epoch == found.epoch, "who was replaced stands by"
    with database.read() as connection:
        stages = connection.execute(
            sa.select(tables.stages.c.stage).where(tables.stages.c.rollout == rollout)
        ).scalars()
        assert len(list(stages)) >= 1
        begun = connection.execute(
            sa.select(sa.func.count())
            .select_from(tables.events)
            .where(tables.events.c.text.like("stage%begins%"))
        ).scalar_one()
        assert begun == 1, "begun once"
    sender.close()
