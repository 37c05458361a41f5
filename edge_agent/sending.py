"""What leaves the device: windows and samples wait in the outbox until the broker has them."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from edge_agent.inbox import Inbox
from edge_agent.monitor import Monitor
from edge_agent.mqtt import Acknowledged, Connected, Disconnected, Link, LinkEvent, Received
from edge_agent.outbox import SAMPLES, STATS, Outbox
from edge_agent.ports import Clock
from edge_core.errors import InvalidMessage, SerinusError
from edge_core.messages import codec, topics, windows
from edge_core.messages.telemetry import Online, ReportedState, Sample

log = logging.getLogger(__name__)

MAX_UNACKNOWLEDGED = 64
SEND_SECONDS = 0.2
FLUSH_SECONDS = 2.0
MAX_COUNT = 2**40

Encode = Callable[[str, int], bytes]


class Sending:
    """The link's only user. On the event loop."""

    def __init__(
        self,
        *,
        device: str,
        link: Link,
        outbox: Outbox,
        monitor: Monitor,
        inbox: Inbox,
        clock: Clock,
        connected: Callable[[], None],
    ) -> None:
        """Take parts.

        Args:
            device: its name in the fleet.
            link: to the broker.
            outbox: where messages wait.
            monitor: closes windows and collects samples.
            inbox: takes what the fleet says.
            clock: for windows' ends.
            connected: called whenever the broker is there again.
        """
        self._device = device
        self._link = link
        self._outbox = outbox
        self._monitor = monitor
        self._inbox = inbox
        self._clock = clock
        self._when_connected = connected
        self.connected = False
        """Whether the broker is there."""
        self._complained = ""
        self._waiting: dict[int, int] = {}
        """Ids in the outbox of what the broker has not acknowledged, by the link's numbers."""
        self._last_sent = 0

    async def follow_link(self) -> None:
        """Handle what the link tells, for ever."""
        while True:
            self.handle(await self._link.events.get())

    def handle(self, event: LinkEvent) -> None:
        """Note one thing that the link tells."""
        match event:
            case Connected():
                self.connected = True
                log.info("broker: connected")
                self._link.subscribe()
                online = codec.encode(Online(device=self._device, online=True))
                self._link.publish(topics.up(self._device, "online"), online, retain=True)
                self._when_connected()
            case Disconnected(reason):
                self.connected = False
                log.warning("broker: %s; serving goes on, messages wait on disk", reason)
            case Acknowledged(mid):
                message = self._waiting.pop(mid, None)
                if message is not None:
                    self._forget(message)
            case Received(topic, payload):
                self._inbox.take(topic, payload)

    def _forget(self, message: int) -> None:
        try:
            self._outbox.sent(message)
        except SerinusError as error:
            log.error("%s", error)

    def publish_state(self, state: ReportedState) -> None:
        """Tell the fleet how the device stands."""
        self._link.publish(topics.up(self._device, "state"), codec.encode(state), retain=True)

    def publish_stored(self) -> None:
        """Publish the oldest messages, as many as may be on their way."""
        room = MAX_UNACKNOWLEDGED - len(self._waiting)
        try:
            waiting = self._outbox.oldest(room, after=self._last_sent) if room > 0 else []
        except SerinusError as error:
            self._complain(str(error))
            return
        for stored in waiting:
            self._waiting[self._link.publish(stored.topic, stored.payload)] = stored.id
            self._last_sent = stored.id

    def _complain(self, trouble: str) -> None:
        """Log a lasting trouble once."""
        if trouble != self._complained:
            self._complained = trouble
            log.error("%s", trouble)

    async def fold(self, window_seconds: float) -> None:
        """Close window after window, for ever."""
        while True:
            await asyncio.sleep(window_seconds)
            self.store()

    def store(self) -> None:
        """Close the window and keep it, with the waiting samples, until the broker has them."""
        closed = self._monitor.close(self._clock.now_ms())
        stats = [partial(_stamped, self._monitor.packed(window)) for window in closed]
        samples = [partial(_unstamped, sample) for sample in self._monitor.take_samples()]
        self._keep(STATS, "stats", stats, "statistics of one window are lost")
        self._keep(SAMPLES, "samples", samples, "samples are lost")

    def _keep(self, kind: int, name: topics.UpKind, messages: Sequence[Encode], lost: str) -> None:
        try:
            self._outbox.add(kind, topics.up(self._device, name), self._fitting(messages))
        except SerinusError as error:
            log.error("%s: %s", lost, error)

    def _fitting(self, messages: Sequence[Encode]) -> list[Encode]:
        """Leave out what no message can hold: one transaction stores the others, or none."""
        fitting = []
        for encode in messages:
            try:
                encode(self._outbox.epoch, MAX_COUNT)
            except InvalidMessage as error:
                log.error("one message is lost: %s", error)
            else:
                fitting.append(encode)
        return fitting

    async def flush(self) -> None:
        """Close the last window and give the broker a moment to take it."""
        self.store()
        deadline = self._clock.monotonic() + FLUSH_SECONDS
        while self.connected and self._clock.monotonic() < deadline:
            self.publish_stored()
            if not self._waiting:
                return
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    self.handle(await self._link.events.get())
            except TimeoutError:
                continue


def _stamped(body: bytes, epoch: str, sequence: int) -> bytes:
    return codec.encode(windows.stamped(body, epoch, sequence))


def _unstamped(sample: Sample, epoch: str, sequence: int) -> bytes:
    return codec.encode(sample)
