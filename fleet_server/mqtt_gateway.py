"""Between the broker and the services: messages in, desired states out.

The network thread only enqueues. One ingest thread stores batches and acknowledges a message
only after its batch is committed, so that a killed server loses nothing that a device sent: the
broker keeps what was not acknowledged for the server's persistent session.
"""

import queue
import ssl
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge_core.errors import SerinusError, Unavailable
from edge_core.messages import topics
from fleet_server.config import MqttConfig
from fleet_server.services.commands import OutgoingCommand
from fleet_server.services.desired import DesiredStates, Outgoing
from fleet_server.services.ingest import Inbound, Ingest
from fleet_server.services.listening import Listening

KEEPALIVE = 30
CONNECT_SECONDS = 10.0
BATCH = 1000
"""Messages in one transaction, at most; the broker beside the server sends twice as many ahead."""
IDLE_SECONDS = 0.2
RETRY_SECONDS = 1.0
QOS = 1
SHARE = "$share/serinus-ingest/"
"""Before a filter: of all who subscribe to it, the broker gives each message to one."""


class _Received(msgspec.Struct, frozen=True):
    """A message with what is needed to acknowledge it on the connection that it came on."""

    message: Inbound
    mid: int
    qos: int
    connection: int


class MqttGateway:
    """One MQTT client with a persistent session, and the thread that stores what it receives."""

    def __init__(
        self,
        config: MqttConfig,
        ingest: Ingest,
        desired: DesiredStates,
        listening: Listening,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._config = config
        self._tls = tls
        self._listening = listening
        self._ingest = ingest
        self._desired = desired
        self._queue: queue.Queue[_Received] = queue.Queue(config.queue)
        self._confirmed: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._in_flight: dict[int, tuple[str, int] | None] = {}
        """What confirms what; none for commands, which devices answer themselves."""
        self._connection = 0
        self._forgotten = threading.Event()
        self._connected = threading.Event()
        self._refusal = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)
        self._client = self._make_client()
        self._receiver: threading.Thread | None = None

    def start(self) -> None:
        """Connect and start storing.

        Raises:
            Unavailable: the broker cannot be reached or refuses the server.
        """
        place = f"{self._config.reached_at}:{self._config.port}"
        try:
            self._client.connect(self._config.reached_at, self._config.port, KEEPALIVE)
        except OSError as error:
            raise Unavailable(
                f"no MQTT broker answers at {place} ({error}): start it, or correct [mqtt]"
            ) from error
        others = set(threading.enumerate())
        self._client.loop_start()
        begun = set(threading.enumerate()) - others
        self._receiver = next((thread for thread in begun if "paho" in thread.name), None)
        if not self._connected.wait(CONNECT_SECONDS):
            self._client.loop_stop()
            raise Unavailable(
                f"the MQTT broker at {place} does not let the server in "
                f"({self._refusal or 'no answer'}): correct username and password in [mqtt]"
            )
        self._note_forgetting()
        self._thread.start()

    def stop(self) -> None:
        """Store what is queued, then leave."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def connected(self) -> bool:
        """Whether the broker can be reached now."""
        return self._client.is_connected()

    @property
    def alive(self) -> bool:
        """Whether the threads that receive and store are running; an error may end the first."""
        receives = self._receiver is not None and self._receiver.is_alive()
        return receives and self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Messages received and not yet stored."""
        return self._queue.qsize()

    def send(self, messages: Sequence[Outgoing]) -> list[Outgoing]:
        """Publish desired states, retained; those that the client took."""
        if not self.connected:
            return []
        taken = []
        for message in messages:
            topic = topics.down(message.device, "desired")
            done = self._client.publish(topic, message.payload, qos=QOS, retain=True)
            if done.rc == mqtt.MQTT_ERR_SUCCESS:
                self._in_flight[done.mid] = (message.device, message.revision)
                taken.append(message)
        return taken

    def send_commands(self, messages: Sequence[OutgoingCommand]) -> list[OutgoingCommand]:
        """Publish commands, not retained: the broker queues them for devices that are away."""
        if not self.connected:
            return []
        taken = []
        for message in messages:
            topic = topics.down(message.device, "command")
            done = self._client.publish(topic, message.payload, qos=QOS)
            if done.rc == mqtt.MQTT_ERR_SUCCESS:
                self._in_flight[done.mid] = None
                taken.append(message)
        return taken

    def _make_client(self) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._config.client_id,
            clean_session=False,
            manual_ack=True,
        )
        if self._config.username is not None:
            client.username_pw_set(self._config.username, self._config.password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.reconnect_delay_set(1, 10)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        return client

    def _on_connect(
        self,
        client: mqtt.Client,
        _userdata: Any,
        flags: mqtt.ConnectFlags,
        code: Any,
        _properties: Any,
    ) -> None:
        if code.is_failure:
            self._refusal = str(code)
            return
        self._connection += 1
        if not flags.session_present:
            self._forgotten.set()
        if self._config.shared:
            client.unsubscribe(topics.every_up())  # the session may remember it
        filters = f"{SHARE if self._config.shared else ''}{topics.every_up()}"
        client.subscribe(filters, qos=QOS)
        self._listening.began()
        self._connected.set()

    def _on_disconnect(self, *_: Any) -> None:
        self._listening.ended()

    def _on_message(self, _client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        received = _Received(
            Inbound(
                topic=_topic(message),
                payload=bytes(message.payload),
                retained=bool(message.retain),
            ),
            message.mid,
            message.qos,
            self._connection,
        )
        while not self._stop.is_set():  # a full queue slows the broker down; nothing is dropped
            try:
                self._queue.put(received, timeout=0.5)
            except queue.Full:
                continue
            return

    def _on_publish(
        self, _client: mqtt.Client, _userdata: Any, mid: int, _code: Any, _properties: Any
    ) -> None:
        self._confirmed.put(mid)

    def _run(self) -> None:
        """Store until the end; nothing but stop() ends this thread, or nobody would notice."""
        while not self._stop.is_set():
            try:
                self._step()
            except Exception:
                traceback.print_exc()
                self._stop.wait(RETRY_SECONDS)

    def _step(self) -> None:
        batch = self._next_batch()
        self._note_forgetting()
        if batch:
            self._store(batch)
        confirmed = self._next_confirmed()
        if confirmed:
            self._persist(partial(self._desired.delivered, confirmed))

    def _note_forgetting(self) -> None:
        """A broker without our session has lost the retained states as well: send them again."""
        if self._forgotten.is_set():
            self._forgotten.clear()
            self._persist(self._desired.broker_forgot)

    def _next_batch(self) -> list[_Received]:
        batch: list[_Received] = []
        try:
            batch.append(self._queue.get(timeout=IDLE_SECONDS))
            while len(batch) < BATCH:
                batch.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return batch

    def _next_confirmed(self) -> list[tuple[str, int]]:
        """Match confirmations with what was sent; one may be here before send() has noted it."""
        confirmed, early = [], []
        while not self._confirmed.empty():
            mid = self._confirmed.get()
            if mid not in self._in_flight:
                early.append(mid)
            elif (sent := self._in_flight.pop(mid)) is not None:
                confirmed.append(sent)
        for mid in early:
            self._confirmed.put(mid)
        return confirmed

    def _store(self, batch: list[_Received]) -> None:
        messages = [received.message for received in batch]
        if not self._persist(lambda: self._take(messages)):
            return  # ending: the broker keeps the batch for the next start
        for received in batch:
            if received.connection == self._connection:
                self._client.ack(received.mid, received.qos)

    def _take(self, messages: list[Inbound]) -> None:
        """Store a batch; where one message breaks it, store the others and count that one."""
        try:
            self._ingest.take(messages)
        except Unavailable:
            raise
        except Exception as error:
            if len(messages) == 1:
                print(f"ingest: {messages[0].topic[:100]}: {error!r}", file=sys.stderr)
                self._ingest.reject(messages[0], "cannot be taken in", repr(error))
                return
            for message in messages:
                self._take([message])

    def _persist(self, action: Callable[[], None]) -> bool:
        """Do it as soon as the database can be written; False where the server ends before.

        What fails for a reason that nobody foresaw is tried again, too: the messages would be
        lost otherwise.
        """
        complained = False
        while True:
            try:
                action()
            except Exception as error:
                if not complained:
                    print(f"ingest: waiting: {error}", file=sys.stderr, flush=True)
                    if not isinstance(error, SerinusError):
                        traceback.print_exc()
                    complained = True
                if self._stop.wait(RETRY_SECONDS):
                    return False
            else:
                return True


def _topic(message: mqtt.MQTTMessage) -> str:
    """The message's topic; a text that no topic is where its bytes are no text.

    Paho reads it only here: an error would end the thread that receives.
    """
    try:
        return message.topic
    except UnicodeDecodeError:
        return "(not UTF-8)"
