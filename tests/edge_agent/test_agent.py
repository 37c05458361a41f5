"""The agent's loop where its disk or a message is out of order."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edge_agent import sending
from edge_agent.account import Account
from edge_agent.agent import Agent
from edge_agent.command_line import status_view
from edge_agent.config import AgentConfig, Mqtt, Repository, Serving
from edge_agent.floor_file import MAX_MS, FloorFile, StoredFloor
from edge_agent.monitor import Monitor
from edge_agent.mqtt import Connected
from edge_agent.update.updater import Updater
from edge_core.messages import codec, windows
from edge_core.messages.telemetry import (
    TAG_BYTES,
    PackedWindow,
    Probation,
    ReportedState,
    StatsWindow,
)
from edge_core.release import ReleaseRef
from tests.simulators.repository import RepositorySimulator
from tests.simulators.tiny_bundle import TARGET


def settings(folder: Path) -> AgentConfig:
    with RepositorySimulator(folder / "source") as source:
        (folder / "root.json").write_bytes(source.root)
    (folder / "state").mkdir()
    return AgentConfig(
        device="d",
        target=TARGET,
        state_dir=folder / "state",
        repository=Repository(url="http://127.0.0.1:9", trusted_root=folder / "root.json"),
        mqtt=Mqtt(host="127.0.0.1", port=9),
        serving=Serving(socket=folder / "agent.sock"),
    )


def window(rows: int) -> StatsWindow:
    return StatsWindow(
        device="d",
        epoch="e",
        sequence=0,
        opened_ms=0,
        closed_ms=1,
        release=ReleaseRef(model="m", version="1.0.0", digest="1" * 64),
        target=TARGET,
        arm="incumbent",
        rows=rows,
    )


class Windows(Monitor):
    """A monitor that closes these windows."""

    def __init__(self, *windows: StatsWindow) -> None:
        super().__init__(device="d", sample_every=1, now_ms=0)
        self._windows = list(windows)

    def close(self, now_ms: int) -> list[StatsWindow]:
        """Give them once."""
        windows, self._windows = self._windows, []
        return windows

    def packed(self, window: StatsWindow) -> bytes:
        """A release's tag and so many bytes as the window has rows."""
        return bytes(windows.SENDER_BYTES + TAG_BYTES + window.rows)


def test_one_window_that_fits_no_message_does_not_cost_the_others(tmp_path: Path) -> None:
    config = settings(tmp_path)

    async def story() -> None:
        agent = Agent(config)
        agent._sending._monitor = Windows(window(4), window(codec.MAX_MESSAGE_BYTES), window(8))
        agent._sending.store()
        stored = [
            windows.head(codec.decode(PackedWindow, m.payload)) for m in agent._outbox.oldest(10)
        ]
        assert [(w.sequence, len(w.rest)) for w in stored] == [(1, 4), (2, 8)]
        await agent._engine.close()
        agent._outbox.close()

    asyncio.run(story())


def test_offline_the_state_is_looked_up_when_it_changes_and_not_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path)
    monkeypatch.setattr(sending, "SEND_SECONDS", 0.01)
    looked, told = Account.reported, []

    def reported(self: Account, at_ms: int) -> ReportedState:
        told.append(at_ms)
        return looked(self, at_ms)

    monkeypatch.setattr(Account, "reported", reported)

    async def story() -> None:
        agent = Agent(config)
        agent._updater._restored = True
        agent._state_dirty.set()
        telling = asyncio.create_task(agent._tell())
        while not told:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert len(told) == 1
        agent._sending.handle(Connected())
        while len(told) < 2:
            await asyncio.sleep(0.01)
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        await agent._engine.close()
        agent._outbox.close()

    asyncio.run(story())


def test_the_window_of_a_trial_that_passed_is_closed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server confirms once it has one, which an hourly window would keep it from."""
    trial: list[Probation | None] = [None]
    monkeypatch.setattr(Updater, "probation", property(lambda _: trial[0]))

    async def story() -> None:
        agent = Agent(settings(tmp_path))
        agent._sending._monitor = Windows(window(4))
        telling = asyncio.create_task(agent._tell())
        for said in (None, Probation(passed=False)):
            trial[0] = said
            await asyncio.sleep(2 * sending.SEND_SECONDS)
            assert not agent._outbox.oldest(10)
        trial[0] = Probation(passed=True)
        async with asyncio.timeout(20):
            while not agent._outbox.oldest(10):
                await asyncio.sleep(sending.SEND_SECONDS)
        agent._sending._monitor = Windows(window(5))
        await asyncio.sleep(2 * sending.SEND_SECONDS)
        assert len(agent._outbox.oldest(10)) == 1, "once for each trial"
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        await agent._engine.close()
        agent._outbox.close()

    asyncio.run(story())


def test_the_page_has_no_words_for_what_no_agent_tells(tmp_path: Path) -> None:
    config = settings(tmp_path)

    async def told() -> set[str]:
        agent = Agent(config)
        status = agent._account.status()
        await agent._engine.close()
        agent._outbox.close()
        return set(status)

    worded = {line.key for lines in status_view.GROUPS.values() for line in lines}
    assert worded <= asyncio.run(told())


def test_an_outbox_that_cannot_be_read_ends_neither_service_nor_status(tmp_path: Path) -> None:
    config = settings(tmp_path)

    async def story() -> None:
        agent = Agent(config)
        with closing(sqlite3.connect(config.state_dir / "outbox.db")) as other:
            other.execute("drop table messages")
            other.commit()
        agent._sending.publish_stored()
        assert agent._account.status()["active"] is None
        agent._sending._monitor = Windows(window(4))
        agent._sending.store()
        assert [m.id for m in agent._outbox.oldest(10)] == [1]
        assert "began anew" in agent._account.reported(0).troubles[0]
        await agent._engine.close()
        agent._outbox.close()

    asyncio.run(story())


def test_a_clock_that_is_far_behind_is_among_the_troubles_and_told_once(tmp_path: Path) -> None:
    config = settings(tmp_path)
    (config.state_dir / "tuf").mkdir()
    later = StoredFloor(at_ms=MAX_MS // 2, boot="", since_boot_ms=0)
    FloorFile(config.state_dir / "tuf").write(later)

    async def story() -> None:
        agent = Agent(config)
        (said,) = agent._account.reported(0).troubles
        assert "set the clock" in said
        assert agent._account.status()["troubles"] == said
        assert agent._account.news()
        assert not agent._account.news()
        await agent._engine.close()
        agent._outbox.close()

    asyncio.run(story())
