"""One device's updater with a real engine, repository client and state folder."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from edge_agent.clock import SystemClock
from edge_agent.config import Update
from edge_agent.monitor import Monitor
from edge_agent.repository import TufRepository
from edge_agent.serving.engine import Engine
from edge_agent.serving.predictions import Prediction
from edge_agent.update.journal import Entry, Journal
from edge_agent.update.slots import Slots
from edge_agent.update.updater import Updater
from edge_core.messages.deployment import DesiredState
from edge_core.messages.telemetry import Probation
from edge_core.release import ReleaseRef
from tests.simulators.repository import RepositorySimulator
from tests.simulators.tiny_bundle import TARGET, tiny_rows

QUICK = {"probation_seconds": 0.2, "probation_rows": 4, "max_attempts": 2, "retry_seconds": 0.05}


class Device:
    """An updater with a real engine, and rows that pass probation."""

    def __init__(
        self, updater: Updater, engine: Engine, slots: Slots, task: asyncio.Task[None]
    ) -> None:
        self.updater = updater
        self.engine = engine
        self.slots = slots
        self._task = task
        self._revision = 0

    def want(
        self,
        active: ReleaseRef | None,
        shadow: ReleaseRef | None = None,
        *,
        confirm_seconds: float | None = None,
    ) -> None:
        """Wish as the server does, with a revision of its own."""
        current = self.updater.entry.desired
        self._revision = max(self._revision, current.revision if current else 0) + 1
        self.updater.want(
            DesiredState(
                revision=self._revision,
                issued_ms=0,
                active=active,
                shadow=shadow,
                confirm_seconds=confirm_seconds,
            )
        )

    def confirm(self) -> None:
        """Say the present wish again, with the server's confirmation."""
        desired = self.updater.entry.desired
        assert desired is not None
        self.updater.want(msgspec.structs.replace(desired, confirmed=True))

    async def passed(self) -> Probation:
        """Wait until the release on trial has passed it, as far as the device can say."""
        async with asyncio.timeout(20):
            while True:
                await self.tick()
                if self.updater.entry.state == "probation" and self.engine.active is not None:
                    await self.ask()
                    found = self.updater.probation
                    if found is not None and found.passed:
                        return found

    async def settled(self, *states: str) -> Entry:
        """Wait for one of these states at rest, and ask for answers in probation."""
        async with asyncio.timeout(20):
            while True:
                await self.tick()
                if self.updater.entry.state == "probation" and self.engine.active is not None:
                    await self.ask()
                if self.updater.entry.state in states and not self.updater.busy:
                    return self.updater.entry

    async def on_trial(self, ref: ReleaseRef) -> None:
        """Wait until this release stands in probation."""
        async with asyncio.timeout(20):
            while True:
                await self.tick()
                desired = self.updater.entry.desired
                if self.updater.entry.state == "probation" and desired and desired.active == ref:
                    return

    async def tick(self) -> None:
        """Let a moment go by; raise what ended the updater."""
        await asyncio.sleep(0.02)
        if self._task.done():
            self._task.result()

    async def serves(self) -> str:
        """Version that answers now."""
        return (await self.ask())[0].version

    async def ask(self) -> list[Prediction]:
        """Have four rows answered, of the kind that the release takes."""
        release = self.engine.active
        if release is not None and release.kind == "requests":
            return await self.engine.ask({"place": ["p1"] * 4, "size": [None] * 4})
        return await self.engine.predict(tiny_rows(4)[0])


@asynccontextmanager
async def device(
    state: Path, repository: RepositorySimulator, **settings: float
) -> AsyncIterator[Device]:
    """A device on this state folder; leaving the context is the end of its process."""
    state.mkdir(parents=True, exist_ok=True)
    clock = SystemClock()
    monitor = Monitor(device="d", sample_every=10, now_ms=0)
    engine = Engine(monitor, slices={}, max_queue_rows=100, now_us=clock.now_us)
    slots = Slots(state)
    updater = Updater(
        journal=Journal(state),
        slots=slots,
        repository=TufRepository(
            url=repository.url, trusted_root=repository.root, folder=state / "tuf"
        ),
        server=engine,
        behaviour=monitor,
        target=TARGET,
        settings=msgspec.convert({**QUICK, **settings}, Update),
        clock=clock,
        changed=lambda: None,
    )
    task = asyncio.create_task(updater.run())
    try:
        yield Device(updater, engine, slots, task)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await engine.close()


def run(story: Callable[[], Coroutine[None, None, None]]) -> None:
    """Tell an asynchronous story."""
    asyncio.run(story())
