"""Devices that run whatever the broker holds for them, and remember all that it ever said.

One connection speaks for all of them. Until they are let, they only listen.
"""

import threading
import time
from typing import Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge_core.messages import codec, topics
from edge_core.messages.deployment import DesiredState
from edge_core.messages.telemetry import ReportedState
from fleet_server.services.desired import Outgoing
from tests.simulators.tiny_bundle import TARGET

EVERY_DESIRED = f"{topics.PREFIX}/down/+/desired"
MARK = "mark"
SECONDS = 10.0


def connected(port: int, name: str, *, clean: bool = True) -> mqtt.Client:
    """A client of a broker on loopback, not running yet."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=clean)
    client.connect("127.0.0.1", port)
    return client


def held(port: int) -> dict[str, DesiredState]:
    """What a broker holds for every device at this moment."""
    found: dict[str, DesiredState] = {}
    marked = threading.Event()

    def hear(_client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        if message.topic == MARK:
            marked.set()
        else:
            found[message.topic.split("/")[3]] = codec.decode(DesiredState, message.payload)

    client = connected(port, "look")
    client.on_message = hear
    client.on_subscribe = lambda client, *_: client.publish(MARK, b"")  # behind what is held
    client.subscribe([(EVERY_DESIRED, 1), (MARK, 1)])
    client.loop_start()
    try:
        assert marked.wait(SECONDS), "the broker does not answer"
    finally:
        client.disconnect()
        client.loop_stop()
    return found


def begin_session(port: int, name: str) -> None:
    """Let a broker know a client that was here before, and hears what comes meanwhile."""
    client = connected(port, name, clean=False)
    client.on_subscribe = lambda client, *_: client.disconnect()
    client.subscribe(topics.every_up(), qos=1)
    client.loop_forever()


class ObeyingFleet:
    """All devices of one broker."""

    def __init__(self, port: int) -> None:
        self.said: list[tuple[str, DesiredState]] = []
        """All that was published, in its order."""
        self._obeys = False
        self._lock = threading.Lock()
        self._client = connected(port, "devices")
        self._client.on_message = self._hear

    def __enter__(self) -> Self:
        heard = threading.Event()
        self._client.on_subscribe = lambda *_: heard.set()
        self._client.subscribe(EVERY_DESIRED, qos=1)
        self._client.loop_start()
        assert heard.wait(SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Say something and wait until the broker has it."""
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(SECONDS)

    def hold(self, orders: list[Outgoing]) -> None:
        """Let the broker hold orders, as if a server had sent them."""
        for order in orders:
            self.publish(topics.down(order.device, "desired"), order.payload, retain=True)

    def obey(self) -> None:
        """Do what was last said, and from now on what is said."""
        with self._lock:
            self._obeys = True
            newest = dict(self.said)
        for device, desired in newest.items():
            self._report(device, desired)

    def _hear(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        device = message.topic.split("/")[3]
        desired = codec.decode(DesiredState, message.payload)
        with self._lock:
            self.said.append((device, desired))
            obeys = self._obeys
        if obeys:
            self._report(device, desired)

    def _report(self, device: str, desired: DesiredState) -> None:
        state = ReportedState(
            device=device,
            at_ms=time.time_ns() // 1_000_000,
            target=TARGET,
            runtime="none",
            desired_revision=desired.revision,
            active=desired.active,
            shadow=desired.shadow,
            update="committed",
        )
        self._client.publish(topics.up(device, "state"), codec.encode(state), qos=1)
