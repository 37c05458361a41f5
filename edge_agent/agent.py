"""The agent's event loop: serving, updating, telling the fleet. Each part owns its own state."""

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec

from edge_agent.commands import Commands
from edge_agent.config import AgentConfig, Supervision
from edge_agent.download import Pace
from edge_agent.inbox import Inbox
from edge_agent.memory_file import MemoryFile
from edge_agent.memory_keeper import MemoryKeeper
from edge_agent.meters import Meters
from edge_agent.monitor import Monitor
from edge_agent.mqtt import Acknowledged, Connected, Disconnected, Link, LinkEvent, Received
from edge_agent.outbox import SAMPLES, STATS, Outbox
from edge_agent.repository import TufRepository
from edge_agent.serving import open_protocol, socket, standing
from edge_agent.serving.breaker import Limits
from edge_agent.serving.engine import Engine
from edge_agent.serving.policy import Policy
from edge_agent.serving.prediction_log import PredictionLog
from edge_agent.supervisor import Supervisor
from edge_agent.update.journal import Journal
from edge_agent.update.slots import Slots
from edge_agent.update.updater import Updater
from edge_agent.watchdog import Watchdog
from edge_core.errors import InvalidConfiguration, InvalidMessage, SerinusError
from edge_core.messages import codec, topics, windows
from edge_core.messages.telemetry import FallbackMode, Online, ReportedState, Sample

log = logging.getLogger(__name__)

MAX_UNACKNOWLEDGED = 64
SEND_SECONDS = 0.2
FLUSH_SECONDS = 2.0
MAX_COUNT = 2**40

Encode = Callable[[str, int], bytes]


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        return time.time_ns() // 1_000_000

    def now_us(self) -> int:
        """Microseconds since 1970, UTC."""
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        """Seconds that only go forward."""
        return time.monotonic()


class Agent:
    """One device in a fleet."""

    def __init__(self, config: AgentConfig, supervision: Supervision | None = None) -> None:
        assert config.repository is not None, "the fleet mode needs a repository"
        assert config.mqtt is not None, "the fleet mode needs a broker"
        self._config = config
        self._clock = SystemClock()
        self._state_dirty = asyncio.Event()
        self._connected = False
        self._said = ""
        self._complained = ""
        self._waiting: dict[int, int] = {}
        self._last_sent = 0
        self._link = Link(config.mqtt, config.device)
        self._monitor = Monitor(
            device=config.device,
            sample_every=config.telemetry.sample_every,
            now_ms=self._clock.now_ms(),
            meters=Meters(sent_bytes=lambda: self._link.sent_bytes),
        )
        self._engine = Engine(
            self._monitor,
            slices=config.slices,
            max_queue_rows=config.serving.max_queue_rows,
            now_us=self._clock.now_us,
            cache_rows=config.serving.cache_rows,
            prediction_log=_prediction_log(config),
            policy=_policy(config, self._clock),
            shadow_cpu_share=config.serving.shadow_cpu_share,
        )
        self._modes: list[FallbackMode] = []
        self._trial_passed = False
        self._commands = Commands(
            config.state_dir, now_ms=self._clock.now_ms, follow=self._engine.policy.order
        )
        self._keeper = MemoryKeeper(
            MemoryFile(
                config.state_dir,
                max_bytes=config.memory.max_bytes,
                max_age_seconds=config.memory.max_age_seconds,
            ),
            self._engine,
            store_seconds=config.memory.store_seconds,
            now_ms=self._clock.now_ms,
            complain=self._complain,
        )
        self._outbox = Outbox(config.state_dir, max_bytes=config.telemetry.outbox_bytes)
        self._troubles = self._outbox.troubles
        self._updater = Updater(
            journal=Journal(config.state_dir),
            slots=Slots(config.state_dir),
            repository=TufRepository(
                url=config.repository.url,
                trusted_root=_read_root(config.repository.trusted_root),
                folder=config.state_dir / "tuf",
                pace=Pace(
                    most=config.update.max_bytes_per_second,
                    least=config.update.min_bytes_per_second,
                    stall_seconds=config.update.stall_seconds,
                ),
            ),
            server=self._engine.lanes[0],
            behaviour=self._monitor,
            target=config.target,
            settings=config.update,
            clock=self._clock,
            changed=self._state_dirty.set,
        )
        self._supervisor = Supervisor(supervision or Supervision())
        self._watchdog = Watchdog(
            (self._engine.thread.heartbeat, self._updater.opening), config.update.hang_seconds
        )
        self._inbox = Inbox(config.device, want=self._updater.want, command=self._follow)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve and follow the fleet until ``stop`` is set; then send what is left, shortly."""
        open_servers = open_protocol.servers(
            self._engine,
            self.status,
            rest_port=self._config.serving.rest_port,
            grpc_port=self._config.serving.grpc_port,
        )
        server = await socket.listen(
            self._config.serving.socket,
            self._engine,
            self.status,
            mode=int(self._config.serving.socket_mode, 8),
        )
        tasks = [self._updater.run(), self._follow_link(), self._send(), self._fold()]
        tasks += [self._keeper.run(), self._show_life()]
        tasks += [serve() for serve in open_servers]
        await self._keeper.recall()
        self._link.start()
        self._state_dirty.set()
        running = [asyncio.create_task(task) for task in tasks]
        log.info("%s serves on %s", self._config.device, self._config.serving.socket)
        self._watchdog.start()
        self._supervisor.ready()
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([*running, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in running:
                if task.done():
                    task.result()  # none of them ends by itself: raise what ended it
        finally:
            self._supervisor.stopping()
            for task in running:
                task.cancel()
            stopping.cancel()
            await asyncio.gather(*running, stopping, return_exceptions=True)
            server.close()
            await self._engine.close()
            self._watchdog.stop()
            await self._keeper.finish()
            await self._flush()
            await self._link.stop()
            self._outbox.close()
            self._config.serving.socket.unlink(missing_ok=True)

    def status(self) -> dict[str, str | int | float | bool | None]:
        """What the agent is doing, for ``serinus-agent status``."""
        active, shadow = self._engine.active, self._engine.shadow
        return {
            "device": self._config.device,
            "target": self._config.target,
            "active": active.ref.name if active else None,
            "digest": active.ref.digest if active else None,
            "shadow": shadow.ref.name if shadow else None,
            "runtime": active.session.runtime if active else None,
            "update": self._updater.entry.state,
            "reason": self._updater.reason,
            "connected": self._connected,
            "rows": self._engine.totals.rows,
            "errors": self._engine.totals.errors,
            "cached": self._engine.totals.cached,
            "refused_requests": self._engine.tally.refused_requests,
            "undeclared_consumers": ", ".join(self._undeclared()),
            "features": active.kind if active else None,
            "memory": self._engine.remembering.beginning,
            "memory_stored": self._keeper.stored,
            "memory_refused": self._engine.remembering.refused,
            "clock_held": self._engine.remembering.clock_held,
            **standing.described(self._engine),
            "commands_unreadable": self._commands.unreadable,
            "samples_too_big": self._monitor.unsendable_samples,
            "unsent_bytes": self._outbox.size,
            "dropped_messages": self._outbox.dropped,
            "troubles": "; ".join(self._outbox.troubles),
            "refused_messages": self._inbox.refused,
        }

    def log_fields(self) -> dict[str, str | None]:
        """What each line of the log says beside its message."""
        active = self._engine.active
        return {
            "device": self._config.device,
            "release": active.ref.name if active else None,
            "update": self._updater.entry.state,
        }

    async def _show_life(self) -> None:
        """Tell the supervisor that the event loop runs, and what a person would ask for."""
        while True:
            self._supervisor.alive(self._said)
            await asyncio.sleep(self._supervisor.pause_seconds)

    def _undeclared(self) -> list[str]:
        """Who asked and is not known to; nobody where the settings name nobody."""
        declared = self._config.serving.consumers
        return sorted(self._engine.consumers - set(declared)) if declared else []

    async def _follow_link(self) -> None:
        while True:
            self._handle(await self._link.events.get())

    def _handle(self, event: LinkEvent) -> None:
        match event:
            case Connected():
                self._connected = True
                log.info("broker: connected")
                self._link.subscribe()
                online = codec.encode(Online(device=self._config.device, online=True))
                self._link.publish(topics.up(self._config.device, "online"), online, retain=True)
                self._state_dirty.set()
            case Disconnected(reason):
                self._connected = False
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

    def _follow(self, command: bytes) -> None:
        self._commands.take(command)
        self._state_dirty.set()

    async def _send(self) -> None:
        """Publish reported state when it changed, and stored messages as they are accepted."""
        while True:
            await asyncio.sleep(SEND_SECONDS)
            self._note_modes()
            self._note_trial()
            if self._state_dirty.is_set() and self._updater.known:
                state = self._reported()
                self._say(state)
                if self._connected:
                    self._state_dirty.clear()
                    topic = topics.up(self._config.device, "state")
                    self._link.publish(topic, codec.encode(state), retain=True)
            if self._connected:
                self._publish_stored()

    def _note_modes(self) -> None:
        """Report when the baseline begins or ends to answer, whatever the cause."""
        modes = standing.modes(self._engine)
        if modes != self._modes:
            self._modes = modes
            self._state_dirty.set()

    def _note_trial(self) -> None:
        """Close the window of a trial that has passed: the server confirms once it has one."""
        trial = self._updater.probation
        before, self._trial_passed = self._trial_passed, trial is not None and trial.passed
        if self._trial_passed and not before:
            self._store()

    def _say(self, state: ReportedState) -> None:
        """Log what a person on the device would ask for, when it changes."""
        active = state.active.name if state.active else "no release"
        shadow = f", {state.shadow.name} in the shadow" if state.shadow else ""
        reason = f" ({state.reason})" if state.reason else ""
        said = f"{state.update}{reason}: {active} serves{shadow}"
        if said != self._said:
            self._said = said
            log.info("%s", said)

    def _publish_stored(self) -> None:
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

    async def _fold(self) -> None:
        while True:
            await asyncio.sleep(self._config.telemetry.window_seconds)
            self._store()

    def _store(self) -> None:
        """Close the window and keep it, with the waiting samples, until the broker has them."""
        device = self._config.device
        closed = self._monitor.close(self._clock.now_ms())
        stats = [partial(_stamped, self._monitor.packed(window)) for window in closed]
        samples = [partial(_unstamped, sample) for sample in self._monitor.take_samples()]
        try:
            self._outbox.add(STATS, topics.up(device, "stats"), self._fitting(stats))
            self._outbox.add(SAMPLES, topics.up(device, "samples"), self._fitting(samples))
        except SerinusError as error:
            log.error("statistics of one window are lost: %s", error)
        self._tell_troubles()

    def _tell_troubles(self) -> None:
        """Report what is wrong with the outbox when it changes."""
        if self._outbox.troubles != self._troubles:
            self._troubles = self._outbox.troubles
            self._state_dirty.set()

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

    async def _flush(self) -> None:
        """Close the last window and give the broker a moment to take it."""
        self._store()
        deadline = self._clock.monotonic() + FLUSH_SECONDS
        while self._connected and self._clock.monotonic() < deadline:
            self._publish_stored()
            if not self._waiting:
                return
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    self._handle(await self._link.events.get())
            except TimeoutError:
                continue

    def _reported(self) -> ReportedState:
        entry = self._updater.entry
        active, shadow = self._engine.active, self._engine.shadow
        desired = entry.desired
        return ReportedState(
            device=self._config.device,
            at_ms=self._clock.now_ms(),
            target=self._config.target,
            runtime=active.session.runtime if active else "",
            slices=self._config.slices,
            desired_revision=desired.revision if desired else 0,
            active=active.ref if active else None,
            previous=self._updater.previous,
            shadow=shadow.ref if shadow else None,
            update=self._updater.state,
            reason=self._updater.reason,
            refusals=entry.refusals,
            fallbacks=standing.modes(self._engine),
            commands=self._commands.outcomes,
            placement=standing.placement(active) if active else None,
            shadow_dropped=self._engine.shadow_dropped,
            probation=self._updater.probation,
            troubles=self._outbox.troubles,
        )


def _policy(config: AgentConfig, clock: SystemClock) -> Policy:
    limits = msgspec.structs.asdict(config.fallback)
    missing = limits.pop("missing")
    return Policy(Limits(**limits), now_us=clock.now_us, monotonic=clock.monotonic, missing=missing)


def _stamped(body: bytes, epoch: str, sequence: int) -> bytes:
    return codec.encode(windows.stamped(body, epoch, sequence))


def _unstamped(sample: Sample, epoch: str, sequence: int) -> bytes:
    return codec.encode(sample)


def _prediction_log(config: AgentConfig) -> PredictionLog | None:
    limit = config.serving.prediction_log_bytes
    return PredictionLog(config.state_dir, max_bytes=limit) if limit else None


def _read_root(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot read [repository] trusted_root {path}: {error.strerror}"
        ) from error


@contextmanager
def only_one(state_dir: Path) -> Iterator[None]:
    """Own the state folder for as long as the context lasts, also across ``kill -9``.

    Raises:
        InvalidConfiguration: another agent owns it, or it cannot be written.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        descriptor = _opened(state_dir / "lock")
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot write the state folder {state_dir}: {error.strerror}"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise InvalidConfiguration(
            f"another agent uses the state folder {state_dir}; stop it first"
        ) from error
    finally:
        os.close(descriptor)


def _opened(lock: Path) -> int:
    """Open the lock; one that is there also where nothing can be written, to serve on all the same.

    Raises:
        OSError: it is not there and cannot be made.
    """
    try:
        return os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        try:
            return os.open(lock, os.O_RDONLY)
        except OSError:
            raise error from None
