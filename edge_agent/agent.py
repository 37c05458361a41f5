"""The agent's event loop: serving, updating, telling the fleet. Each part owns its own state."""

import asyncio
import logging
from pathlib import Path

import msgspec

from edge_agent import sending
from edge_agent.account import Account, Parts
from edge_agent.boot import boot_id
from edge_agent.clock import SystemClock
from edge_agent.commands import Commands
from edge_agent.config import AgentConfig, Supervision
from edge_agent.download import Pace
from edge_agent.identity import opening
from edge_agent.inbox import Inbox
from edge_agent.memory_file import MemoryFile
from edge_agent.memory_keeper import MemoryKeeper
from edge_agent.meters import Meters
from edge_agent.monitor import Monitor
from edge_agent.mqtt import Link
from edge_agent.outbox import Outbox
from edge_agent.repository import TufRepository
from edge_agent.sending import Sending
from edge_agent.serving import open_protocol, socket
from edge_agent.serving.breaker import Limits
from edge_agent.serving.engine import Engine
from edge_agent.serving.policy import Policy
from edge_agent.serving.prediction_log import PredictionLog
from edge_agent.supervisor import Supervisor
from edge_agent.update.journal import Journal
from edge_agent.update.slots import Slots
from edge_agent.update.updater import Updater
from edge_agent.watchdog import Watchdog
from edge_core.errors import InvalidConfiguration
from edge_core.messages.telemetry import ReportedState

log = logging.getLogger(__name__)


class Agent:
    """One device in a fleet."""

    def __init__(self, config: AgentConfig, supervision: Supervision | None = None) -> None:
        assert config.repository is not None, "the fleet mode needs a repository"
        assert config.mqtt is not None, "the fleet mode needs a broker"
        self._config = config
        self._clock = SystemClock()
        self._state_dirty = asyncio.Event()
        trust = opening.trust(config)
        self._link = Link(config.mqtt, config.device, opening.broker_context(config, trust))
        self._renewal = opening.renewal(config, trust, self._clock, self._link.show)
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
            hang_seconds=config.update.hang_seconds,
        )
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
        )
        self._outbox = Outbox(config.state_dir, max_bytes=config.telemetry.outbox_bytes)
        repository = TufRepository(
            url=config.repository.url,
            trusted_root=_read_root(config.repository.trusted_root),
            folder=config.state_dir / "tuf",
            tls=opening.repository_context(config, trust),
            pace=Pace(
                most=config.update.max_bytes_per_second,
                least=config.update.min_bytes_per_second,
                stall_seconds=config.update.stall_seconds,
            ),
        )
        self._updater = Updater(
            journal=Journal(config.state_dir),
            slots=Slots(config.state_dir),
            repository=repository,
            server=self._engine.lanes[0],
            behaviour=self._monitor,
            target=config.target,
            settings=config.update,
            clock=self._clock,
            changed=self._state_dirty.set,
            boot=boot_id(),
        )
        self._supervisor = Supervisor(supervision or Supervision())
        self._watchdog = Watchdog(
            (self._engine.thread.heartbeat, self._updater.opening), config.update.hang_seconds
        )
        self._inbox = Inbox(config.device, want=self._updater.want, command=self._follow)
        self._sending = Sending(
            device=config.device,
            link=self._link,
            outbox=self._outbox,
            monitor=self._monitor,
            inbox=self._inbox,
            clock=self._clock,
            connected=self._state_dirty.set,
        )
        self._account = Account(
            Parts(
                engine=self._engine,
                updater=self._updater,
                monitor=self._monitor,
                keeper=self._keeper,
                commands=self._commands,
                outbox=self._outbox,
                inbox=self._inbox,
                sending=self._sending,
                time=repository.time,
                renewal=self._renewal,
            ),
            device=config.device,
            target=config.target,
            slices=config.slices,
            declared=config.serving.consumers,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve and follow the fleet until ``stop`` is set; then send what is left, shortly."""
        open_servers = open_protocol.servers(
            self._engine,
            self._account.status,
            rest_port=self._config.serving.rest_port,
            grpc_port=self._config.serving.grpc_port,
        )
        server = await socket.listen(
            self._config.serving.socket,
            self._engine,
            self._account.status,
            mode=int(self._config.serving.socket_mode, 8),
        )
        tasks = [self._updater.run(), self._sending.follow_link(), self._tell()]
        tasks += [self._sending.fold(self._config.telemetry.window_seconds)]
        tasks += [self._keeper.run(), self._show_life()]
        tasks += [serve() for serve in open_servers]
        if self._renewal is not None:
            tasks.append(self._renewal.run())
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
            await self._sending.flush()
            await self._link.stop()
            self._outbox.close()
            self._config.serving.socket.unlink(missing_ok=True)

    def log_fields(self) -> dict[str, str | None]:
        """What each line of the log says beside its message."""
        return self._account.log_fields()

    async def _show_life(self) -> None:
        """Tell the supervisor that the event loop runs, and what a person would ask for."""
        while True:
            self._supervisor.alive(self._account.said)
            await asyncio.sleep(self._supervisor.pause_seconds)

    def _follow(self, command: bytes) -> None:
        self._commands.take(command)
        self._state_dirty.set()

    async def _tell(self) -> None:
        """Publish reported state when it changed, and stored messages as they are accepted."""
        untold: ReportedState | None = None
        while True:
            await asyncio.sleep(sending.SEND_SECONDS)
            self._link.keep_running()
            if self._account.news():
                self._state_dirty.set()
            self._note_trial()
            if self._state_dirty.is_set() and self._updater.known:
                self._state_dirty.clear()  # it is set again where the broker comes back
                untold = self._account.reported(self._clock.now_ms())
                self._account.say(untold)
            if self._sending.connected:
                if untold is not None:
                    self._sending.publish_state(untold)
                    untold = None
                self._sending.publish_stored()

    def _note_trial(self) -> None:
        """Close the window of a trial that has passed: the server confirms once it has one."""
        trial = self._updater.probation
        before, self._trial_passed = self._trial_passed, trial is not None and trial.passed
        if self._trial_passed and not before:
            self._sending.store()


def _policy(config: AgentConfig, clock: SystemClock) -> Policy:
    limits = msgspec.structs.asdict(config.fallback)
    missing = limits.pop("missing")
    return Policy(Limits(**limits), now_us=clock.now_us, monotonic=clock.monotonic, missing=missing)


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
