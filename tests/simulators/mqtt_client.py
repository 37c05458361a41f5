"""An MQTT client with a certificate that notes what comes and when it is thrown off."""

import ssl
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from tests.simulators.processes import wait_for


class MqttClient:
    """Connected when it was made; it does not come again by itself once it was thrown off."""

    def __init__(self, context: ssl.SSLContext, port: int, name: str) -> None:
        self.came: list[tuple[str, bytes]] = []
        self.losses = 0
        self.granted: list[Any] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name)
        self._client.tls_set_context(context)
        self._client.reconnect_delay_set(60, 60)
        self._client.on_message = self._message
        self._client.on_disconnect = self._lost
        self._client.on_subscribe = self._subscribed
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        wait_for(self._client.is_connected, seconds=10, what="a connection")

    def _message(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        self.came.append((message.topic, bytes(message.payload)))

    def _lost(self, *_: Any) -> None:
        self.losses += 1

    def _subscribed(self, _client: Any, _data: Any, _mid: int, codes: Any, _more: Any) -> None:
        self.granted += codes

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish, and wait until the broker has it."""
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(10)

    def send(self, topic: str, payload: bytes) -> None:
        """Publish, whether or not the broker takes it."""
        self._client.publish(topic, payload, qos=1)

    def subscribe(self, *filters: str) -> None:
        """Subscribe, and wait for the answers."""
        before = len(self.granted)
        for one in filters:
            self._client.subscribe(one, qos=1)
        wait_for(
            lambda: len(self.granted) == before + len(filters), seconds=10, what="subscriptions"
        )

    def close(self) -> None:
        """Go away."""
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> "MqttClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
