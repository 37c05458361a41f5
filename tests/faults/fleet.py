"""The server's side of the broker: says what is wanted, hears what devices report. No thread."""

import select
import time
from collections.abc import Callable

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge_core.messages import codec, topics, windows
from edge_core.messages.deployment import DesiredState
from edge_core.messages.telemetry import PackedWindow, ReportedState
from edge_core.messages.windows import Head

READ_AT_ONCE = 500


class Fleet:
    """One connection to the broker."""

    def __init__(self, port: int, name: str) -> None:
        self.reported: dict[str, ReportedState] = {}
        """The newest by device."""
        self.windows: dict[str, list[Head]] = {}
        """In the order of their arrival."""
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name)
        self._client.on_message = self._hear
        self._client.connect("127.0.0.1", port, keepalive=3600)
        self.pump(until=self._client.is_connected)

    def follow(self, device: str, *, windows: bool = False) -> None:
        """Hear this device from now on."""
        for kind in ("state", "stats") if windows else ("state",):
            self._client.subscribe(f"{topics.PREFIX}/up/{device}/{kind}", qos=1)
        self.pump()

    def leave(self, device: str) -> None:
        """Hear it no more, and take back what was wished for it."""
        for kind in ("state", "stats"):
            self._client.unsubscribe(f"{topics.PREFIX}/up/{device}/{kind}")
        self._client.publish(topics.down(device, "desired"), b"", qos=1, retain=True)
        self.pump()
        self.reported.pop(device, None)
        self.windows.pop(device, None)

    def want(self, device: str, desired: DesiredState) -> None:
        """Say what the device should hold, as the server does."""
        topic = topics.down(device, "desired")
        message = self._client.publish(topic, codec.encode(desired), qos=1, retain=True)
        self.pump(until=message.is_published)

    def pump(
        self, seconds: float = 0.0, *, until: Callable[[], bool] | None = None, most: float = 20.0
    ) -> None:
        """Send and hear for a moment, or until something is so."""
        deadline = time.monotonic() + (most if until else seconds)
        while True:
            self._client.loop(timeout=0.005)
            self._drain()
            if until is not None and until():
                return
            if time.monotonic() >= deadline:
                if until is not None:
                    raise TimeoutError("the broker does not answer")
                return

    def _drain(self) -> None:
        """Read what came together with the first message."""
        for _ in range(READ_AT_ONCE):
            socket = self._client.socket()
            if socket is None or not select.select([socket], [], [], 0)[0]:
                return
            self._client.loop_read()

    def _hear(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        device, kind = topics.parse_up(message.topic)
        if kind == "state":
            self.reported[device] = codec.decode(ReportedState, message.payload)
        elif kind == "stats":
            window = windows.head(codec.decode(PackedWindow, message.payload))
            self.windows.setdefault(device, []).append(window)
