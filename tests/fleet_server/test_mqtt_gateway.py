"""The gateway on a real broker: what is not stored is not acknowledged."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge_core.errors import Unavailable
from edge_core.messages import codec, topics
from edge_core.messages import windows as messages
from edge_core.messages.deployment import DesiredState
from edge_core.messages.telemetry import ReportedState, StatsWindow
from edge_core.release import ReleaseRef
from fleet_server.broker.process import Broker
from fleet_server.config import MqttConfig
from fleet_server.mqtt_gateway import MqttGateway
from fleet_server.repository_watch import RepositoryWatch
from fleet_server.services.catalog import Catalog
from fleet_server.services.desired import MOST_AT_ONCE, DesiredStates, Wanted, want
from fleet_server.services.ingest import Ingest
from fleet_server.services.listening import Listening
from fleet_server.storage import desired_states, devices, journal, windows
from fleet_server.storage.database import Database
from tests.simulators.processes import free_port, wait_for
from tests.simulators.tiny_bundle import TARGET

COUNT = 300


class Locked(Ingest):
    """An ingest whose database cannot be written."""

    calls = 0

    def take(self, batch: Any) -> None:
        self.calls += 1
        raise Unavailable("the disk is full")


@pytest.fixture
def mqtt_config() -> MqttConfig:
    return MqttConfig(port=free_port())


@pytest.fixture
def broker(mqtt_config: MqttConfig, tmp_path: Path) -> Iterator[Broker]:
    found = Broker(mqtt_config, tmp_path).start()
    yield found
    found.stop()


@pytest.fixture
def release(repository: Any, watch: RepositoryWatch) -> ReleaseRef:
    ref: ReleaseRef = repository.publish("1.0.0")
    watch.look()
    return ref


@pytest.fixture
def device(broker: Broker, mqtt_config: MqttConfig) -> Iterator[mqtt.Client]:
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="d1", clean_session=False)
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    client.connect("127.0.0.1", mqtt_config.port)
    client.loop_start()
    assert connected.wait(5)
    yield client
    client.disconnect()
    client.loop_stop()


def send_windows(
    device: mqtt.Client, release: ReleaseRef, clock: Any, database: Database, catalog: Catalog
) -> None:
    with database.read() as connection:
        schema = catalog.require(connection, release.digest).window_schema
    window = StatsWindow(
        device="d1",
        epoch="e",
        sequence=0,
        opened_ms=clock() - 1000,
        closed_ms=clock(),
        release=release,
        target=TARGET,
        arm="incumbent",
        rows=3,
    )
    for i in range(COUNT):
        packed = messages.pack(msgspec.structs.replace(window, sequence=i), schema)
        payload = codec.encode(packed)
        device.publish(topics.up("d1", "stats"), payload, qos=1).wait_for_publish(5)


def stored(database: Database, release: ReleaseRef) -> int:
    with database.read() as connection:
        return windows.totals_of(connection, "d1", release.digest, "incumbent").rows


def test_what_was_not_stored_comes_again_after_a_restart(
    mqtt_config: MqttConfig,
    broker: Broker,
    device: mqtt.Client,
    database: Database,
    catalog: Catalog,
    clock: Any,
    release: ReleaseRef,
) -> None:
    desired = DesiredStates(database, clock, 15)
    settings: dict[str, Any] = {"drift_period_seconds": 10, "future_seconds": 600}
    locked = Locked(database, catalog, clock, **settings)
    first = MqttGateway(mqtt_config, locked, desired, Listening(clock))
    first.start()
    send_windows(device, release, clock, database, catalog)
    wait_for(lambda: locked.calls > 0, seconds=10, what="a failing write")
    first.stop()
    assert stored(database, release) == 0

    second = MqttGateway(
        mqtt_config, Ingest(database, catalog, clock, **settings), desired, Listening(clock)
    )
    second.start()
    try:
        wait_for(lambda: stored(database, release) == 3 * COUNT, seconds=60, what="every window")
    finally:
        second.stop()
    with database.read() as connection:
        assert windows.lost_windows(connection) == {"d1": 0}


def test_a_message_that_breaks_ingest_does_not_stop_the_others(
    mqtt_config: MqttConfig,
    broker: Broker,
    device: mqtt.Client,
    database: Database,
    catalog: Catalog,
    clock: Any,
    release: ReleaseRef,
) -> None:
    class Fragile(Ingest):
        def take(self, batch: Any) -> None:
            if any(message.payload == b"poison" for message in batch):
                raise RuntimeError("a bug")
            super().take(batch)

    ingest = Fragile(database, catalog, clock, drift_period_seconds=10, future_seconds=600)
    gateway = MqttGateway(mqtt_config, ingest, DesiredStates(database, clock, 15), Listening(clock))
    gateway.start()
    try:
        device.publish(topics.up("d1", "stats"), b"poison", qos=1)
        send_windows(device, release, clock, database, catalog)
        wait_for(lambda: stored(database, release) == 3 * COUNT, seconds=60, what="every window")
    finally:
        gateway.stop()
    with database.read() as connection:
        (row,) = journal.rejections(connection, 10)
    assert row.reason == "cannot be taken in"


def test_a_failure_that_nobody_foresaw_does_not_end_the_storing(
    mqtt_config: MqttConfig,
    broker: Broker,
    device: mqtt.Client,
    database: Database,
    catalog: Catalog,
    clock: Any,
    release: ReleaseRef,
) -> None:
    class Failing(Ingest):
        failures = 0
        well = False

        def take(self, batch: Any) -> None:
            if not self.well:
                raise RuntimeError("a bug")
            super().take(batch)

        def reject(self, message: Any, reason: str, detail: str) -> None:
            self.failures += 1
            raise RuntimeError("another bug")

    ingest = Failing(database, catalog, clock, drift_period_seconds=10, future_seconds=600)
    gateway = MqttGateway(mqtt_config, ingest, DesiredStates(database, clock, 15), Listening(clock))
    gateway.start()
    try:
        send_windows(device, release, clock, database, catalog)
        wait_for(lambda: ingest.failures > 0, seconds=10, what="a failure")
        ingest.well = True
        wait_for(lambda: stored(database, release) == 3 * COUNT, seconds=60, what="every window")
    finally:
        gateway.stop()


def test_a_desired_state_arrives_retained_and_is_noted_once_the_broker_has_it(
    mqtt_config: MqttConfig,
    broker: Broker,
    device: mqtt.Client,
    database: Database,
    catalog: Catalog,
    clock: Any,
    release: ReleaseRef,
) -> None:
    ingest = Ingest(database, catalog, clock, drift_period_seconds=10, future_seconds=600)
    desired = DesiredStates(database, clock, 15)
    listening = Listening(clock)
    listening.ended()
    clock.now += 1000
    gateway = MqttGateway(mqtt_config, ingest, desired, listening)
    gateway.start()
    clock.now += 1000
    try:
        assert listening.since_ms() == clock() - 1000
        wait_for(lambda: desired.to_send() == [], seconds=5, what="the first connection")
        with database.write() as connection:
            want(connection, {"d1": Wanted(active=release.digest)}, [], clock())
        due = desired.to_send()
        assert [message.device for message in due] == ["d1"]
        desired.sent(gateway.send(due))

        def confirmed() -> bool:
            with database.read() as connection:
                return desired_states.every(connection)["d1"].confirmed_sent

        wait_for(confirmed, seconds=10, what="the broker's confirmation")
        assert desired.to_send() == []
    finally:
        gateway.stop()
    wait_for(lambda: listening.since_ms() == clock(), seconds=10, what="that nothing is heard")
    got: list[mqtt.MQTTMessage] = []
    device.on_message = lambda _c, _u, message: got.append(message)
    device.subscribe(topics.down("d1", "desired"), qos=1)
    wait_for(lambda: bool(got), seconds=5, what="the retained state")
    state = codec.decode(DesiredState, got[0].payload)
    assert (state.active, state.revision) == (release, 1)


def test_what_the_broker_repeats_is_told_apart_from_what_a_device_says(
    mqtt_config: MqttConfig,
    broker: Broker,
    device: mqtt.Client,
    database: Database,
    catalog: Catalog,
    clock: Any,
) -> None:
    def seen() -> int:
        with database.read() as connection:
            found = devices.one(connection, "d1")
        return found.last_seen_ms if found is not None else 0

    class Counting(Ingest):
        retained: ClassVar[list[bool]] = []

        def take(self, batch: Any) -> None:
            super().take(batch)
            self.retained += [message.retained for message in batch]

    settings: dict[str, Any] = {"drift_period_seconds": 10, "future_seconds": 600}
    payload = codec.encode(ReportedState(device="d1", at_ms=0, target=TARGET, runtime="none"))
    for start in range(2):
        ingest = Counting(database, catalog, clock, **settings)
        gateway = MqttGateway(
            mqtt_config, ingest, DesiredStates(database, clock, 15), Listening(clock)
        )
        gateway.start()
        try:
            if start == 1:
                wait_for(lambda: True in Counting.retained, seconds=10, what="the broker's copy")
                assert seen() < clock()
            device.publish(topics.up("d1", "state"), payload, qos=1, retain=True)
            wait_for(lambda: seen() == clock(), seconds=10, what="the device's state")
        finally:
            gateway.stop()
        clock.now += 3_600_000


def test_an_unanswered_desired_state_is_sent_again_at_a_bounded_rate(
    database: Database, clock: Any
) -> None:
    desired = DesiredStates(database, clock, 15)
    with database.write() as connection:
        want(connection, {"d1": Wanted(active=None)}, [], clock())
    due = desired.to_send()
    desired.sent(due)
    desired.delivered([("d1", 1)])
    clock.now += 14_000
    assert desired.to_send() == []
    clock.now += 2_000
    assert len(desired.to_send()) == 1
    desired.sent(due)
    assert desired.to_send() == []


def test_devices_that_never_answer_do_not_crowd_out_others(database: Database, clock: Any) -> None:
    desired = DesiredStates(database, clock, 15)
    with database.write() as connection:
        silent = {f"a{number:04}": Wanted(active=None) for number in range(MOST_AT_ONCE)}
        want(connection, silent, [], clock())
    desired.sent(desired.to_send())
    clock.now += 60_000
    with database.write() as connection:
        want(connection, {"z": Wanted(active=None)}, [], clock())
    due = desired.to_send()
    assert due[0].device == "z"
    desired.sent(due)
    left = desired.to_send()
    assert [message.device for message in left] == [f"a{MOST_AT_ONCE - 1:04}"]


def test_no_broker_is_one_clear_line(database: Database, catalog: Catalog, clock: Any) -> None:
    config = MqttConfig(port=free_port(), broker="external")
    ingest = Ingest(database, catalog, clock, drift_period_seconds=10, future_seconds=600)
    gateway = MqttGateway(config, ingest, DesiredStates(database, clock, 15), Listening(clock))
    with pytest.raises(Unavailable, match="no MQTT broker answers"):
        gateway.start()


def test_a_topic_that_is_no_text_ends_nothing(
    mqtt_config: MqttConfig,
    broker: Broker,
    device: mqtt.Client,
    database: Database,
    catalog: Catalog,
    clock: Any,
    release: ReleaseRef,
) -> None:
    ingest = Ingest(database, catalog, clock, drift_period_seconds=10, future_seconds=600)
    gateway = MqttGateway(mqtt_config, ingest, DesiredStates(database, clock, 15), Listening(clock))
    gateway.start()
    try:
        odd = mqtt.MQTTMessage(topic=b"serinus/v1/up/\xff/state")
        gateway._on_message(gateway._client, None, odd)
        with socket.create_connection(("127.0.0.1", mqtt_config.port)) as raw:
            raw.sendall(b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03raw")  # CONNECT
            raw.settimeout(10)
            assert raw.recv(4)[:2] == b"\x20\x02"
            topic = b"serinus/v1/up/\xff/state"
            body = len(topic).to_bytes(2, "big") + topic + b"junk"
            raw.sendall(b"\x30" + bytes([len(body)]) + body)  # PUBLISH
            send_windows(device, release, clock, database, catalog)
        wait_for(lambda: stored(database, release) == 3 * COUNT, seconds=60, what="every window")
    finally:
        gateway.stop()
    with database.read() as connection:
        (row,) = journal.rejections(connection, 10)
    assert (row.reason, row.device) == ("unreadable message", "?")
