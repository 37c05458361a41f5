"""The engine's memory on its way to the disk and back, with a real engine and files."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from edge_agent.memory_file import FILE, MemoryFile
from edge_agent.memory_keeper import MemoryKeeper
from edge_agent.monitor import Monitor
from edge_agent.serving.engine import Engine
from edge_agent.serving.release import LoadedRelease
from tests.simulators.tiny_bundle import TARGET
from tests.simulators.tiny_requests import BEGIN, tiny_requests

pytestmark = pytest.mark.anyio
ASKED = {"place": ["p1"], "size": [1.0], "at": [BEGIN + 99]}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> LoadedRelease:
    return LoadedRelease.open(tiny_requests(tmp_path_factory.mktemp("bundle")), TARGET)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Life:
    """One process's worth of engine and keeper."""

    def __init__(self, folder: Path, seconds: float) -> None:
        monitor = Monitor(device="d", sample_every=100, now_ms=0)
        self.engine = Engine(monitor, slices={}, max_queue_rows=100, now_us=lambda: BEGIN)
        self.keeper = MemoryKeeper(
            MemoryFile(folder, max_bytes=10**6, max_age_seconds=60),
            self.engine,
            store_seconds=seconds,
            now_ms=lambda: BEGIN // 1000,
        )

    async def event(self, number: int) -> None:
        fields = {"place": ["p1"], "kind": ["x"], "weight": [1.0]}
        await self.engine.observe("parcels", np.array([BEGIN]), [number], fields)

    async def stored(self) -> None:
        async with asyncio.timeout(10):
            while not self.keeper.stored:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def life(
    folder: Path, release: LoadedRelease, seconds: float = 0.02, *, killed: bool = False
) -> AsyncIterator[Life]:
    lived = Life(folder, seconds)
    await lived.keeper.recall()
    lived.engine.set_active(release, "incumbent", None)
    task = asyncio.create_task(lived.keeper.run())
    try:
        yield lived
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await lived.engine.close()
        if not killed:
            await lived.keeper.finish()


async def test_it_is_stored_now_and_then_and_at_the_end(
    release: LoadedRelease, tmp_path: Path
) -> None:
    async with life(tmp_path, release) as one:
        assert one.keeper.stored
        await asyncio.sleep(0.1)
        assert not (tmp_path / FILE).exists()
        await one.event(1)
        await one.stored()
        before = (tmp_path / FILE).stat().st_mtime_ns
        await asyncio.sleep(0.1)
        assert (tmp_path / FILE).stat().st_mtime_ns == before
        await one.event(2)
    async with life(tmp_path, release) as other:
        assert other.engine.remembering.beginning == "restored"
        assert other.keeper.stored
        await other.event(3)
        (seen,) = await other.engine.ask(ASKED)
    async with life(tmp_path / "new", release, 0.0, killed=True) as fresh:
        for number in (1, 2, 3):
            await fresh.event(number)
        assert (await fresh.engine.ask(ASKED))[0].scores == seen.scores


async def test_with_zero_seconds_only_the_end_counts(
    release: LoadedRelease, tmp_path: Path
) -> None:
    async with life(tmp_path, release, 0.0, killed=True) as one:
        await one.event(1)
        await asyncio.sleep(0.1)
        assert not one.keeper.stored
    assert not (tmp_path / FILE).exists()
    async with life(tmp_path, release, 0.0) as other:
        await other.event(1)
    assert (tmp_path / FILE).exists()


async def test_a_disk_that_fails_is_complained_of_and_tried_again(
    release: LoadedRelease, tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    async with life(folder, release) as one:
        await one.event(1)
        async with asyncio.timeout(10):
            while not one.keeper.trouble:
                await asyncio.sleep(0.01)
        assert "cannot be stored: No such file" in one.keeper.trouble
        assert len(await one.engine.ask(ASKED)) == 1
        folder.mkdir()
        await one.stored()
        assert one.keeper.trouble == ""


async def test_serving_goes_on_while_it_is_stored(release: LoadedRelease, tmp_path: Path) -> None:
    async with life(tmp_path, release, 0.001) as one:
        for number in range(100):
            await one.event(number)
            (answer,) = await one.engine.ask({**ASKED, "at": [BEGIN]})
            assert answer.last_us == BEGIN
        found = await asyncio.gather(*(one.engine.ask(ASKED) for _ in range(90)))
        assert len(found) == 90
        assert not one.keeper.trouble
