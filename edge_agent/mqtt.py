"""The link to the broker: the only paho import. Callbacks only enqueue; nothing is decided."""

import asyncio
import random
import ssl
import threading
from pathlib import Path
from typing import NamedTuple, get_args

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent import tls as certificates
from edge_agent.config import Mqtt
from edge_core.messages import codec, topics
from edge_core.messages.telemetry import Online

MAX_RECEIVED = 1000
"""Messages that may wait for the event loop; more are dropped."""
KEEPALIVE_SECONDS = 30


class Connected(NamedTuple):
    """The broker accepted the connection."""


class Disconnected(NamedTuple):
    """The connection is gone; the link tries again by itself."""

    reason: str


class Acknowledged(NamedTuple):
    """The broker has a message that was published with quality of service 1."""

    mid: int


class Received(NamedTuple):
    """A message for this device."""

    topic: str
    payload: bytes


LinkEvent = Connected | Disconnected | Acknowledged | Received


class Link:
    """One device's connection to its broker, with a persistent session and a last will."""

    def __init__(self, settings: Mqtt, device: str, tls: ssl.SSLContext | None = None) -> None:
        """Prepare; ``tls`` trusts the broker's authority and shows the device's certificate."""
        self._settings = settings
        self._tls = tls
        self._anew = False
        self._device = device
        self._loop = asyncio.get_running_loop()
        self._down = False
        self.sent_bytes = 0
        """Payloads given to the broker so far."""
        self.events: asyncio.Queue[LinkEvent] = asyncio.Queue()
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"serinus-{device}", clean_session=False
        )
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.reconnect_delay_set(1, 30)
        offline = codec.encode(Online(device=device, online=False))
        client.will_set(topics.up(device, "online"), offline, qos=1, retain=True)
        if tls is not None:
            client.tls_set_context(tls)
        if settings.username is not None:
            client.username_pw_set(settings.username, settings.password)
        self._client = client
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Connect in the background, and again whenever the connection is lost."""
        self._client.connect_async(self._settings.host, self._settings.port, KEEPALIVE_SECONDS)
        others = set(threading.enumerate())
        self._client.loop_start()
        begun = set(threading.enumerate()) - others
        self._thread = next((thread for thread in begun if "paho" in thread.name), None)

    def keep_running(self) -> None:
        """Connect anew where an error has ended the client's thread, as want of memory does.

        The client says nothing of it: the device would serve on and be silent for ever.
        """
        if self._thread is not None and not self._thread.is_alive():
            if not self._anew:
                self._enqueue(Disconnected("its thread has ended by an error, and begins again"))
            self._anew = False
            self.start()

    def show(self, own: Path) -> None:
        """Connect anew with another certificate (PEM, with its key); nothing is lost by it.

        Raises:
            InvalidConfiguration: it cannot be used; the connection stays as it is.
        """
        if self._tls is not None:
            certificates.show(self._tls, own)
            self._anew = True
            self._client.disconnect()  # ends the thread, which keep_running() begins again

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Send with quality of service 1; the number comes back when it is acknowledged."""
        self.sent_bytes += len(payload)
        return self._client.publish(topic, payload, qos=1, retain=retain).mid

    def subscribe(self) -> None:
        """Ask for this device's desired state and for commands."""
        kinds: tuple[topics.DownKind, ...] = get_args(topics.DownKind)
        self._client.subscribe([(topics.down(self._device, kind), 1) for kind in kinds])

    async def stop(self) -> None:
        """Say goodbye and disconnect."""
        farewell = codec.encode(Online(device=self._device, online=False))
        self.publish(topics.up(self._device, "online"), farewell, retain=True)
        await asyncio.sleep(random.uniform(0, 0.05))  # let the network thread send it
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    # Callbacks, on paho's own thread.

    def _enqueue(self, event: LinkEvent) -> None:
        def put() -> None:
            # Only what others send has no bound of its own; what is acknowledged must be known.
            if not isinstance(event, Received) or self.events.qsize() < MAX_RECEIVED:
                self.events.put_nowait(event)

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(put)

    def _on_connect(
        self,
        client: paho.Client,
        userdata: object,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._down = False
        if reason.is_failure:
            self._enqueue(Disconnected(str(reason)))
        else:
            self._enqueue(Connected())

    def _on_connect_fail(self, client: paho.Client, userdata: object) -> None:
        if not self._down:  # said once, not at each attempt
            self._down = True
            place = f"{self._settings.host}:{self._settings.port}"
            why = ", or not this device's certificate" if self._tls is not None else ""
            self._enqueue(Disconnected(f"{place} takes no connection{why}"))

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: object,
        flags: paho.DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._enqueue(Disconnected(str(reason)))

    def _on_publish(
        self,
        client: paho.Client,
        userdata: object,
        mid: int,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._enqueue(Acknowledged(mid))

    def _on_message(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:  # raised here, it would end paho's thread
            topic = "(not UTF-8)"
        self._enqueue(Received(topic, bytes(message.payload)))
