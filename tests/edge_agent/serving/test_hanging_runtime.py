import asyncio
import threading

import httpx
import pytest

from edge_agent.inference.session import Float32, Session
from edge_agent.monitor import Monitor
from edge_agent.serving import rest
from edge_agent.serving.engine import Engine
from edge_agent.serving.release import LoadedRelease
from tests.simulators.tiny_bundle import tiny_rows

pytestmark = pytest.mark.anyio


class HangingSession:
    """A runtime that does not come back until it is let go."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.runtime, self.placement = session.runtime, session.placement
        self.absent: list[str] = []
        self.reached, self.let_go = threading.Event(), threading.Event()

    def run(self, features: Float32) -> Float32:
        self.reached.set()
        assert self.let_go.wait(30)
        return self._session.run(features)


class NotingSession(HangingSession):
    """Notes since when the thread is at the piece of work that it is at."""

    def __init__(self, session: Session, engine: Engine) -> None:
        super().__init__(session)
        self.since: list[float | None] = []
        self._engine = engine

    def run(self, features: Float32) -> Float32:
        self.since.append(self._engine.thread.heartbeat._since)
        return super().run(features)


async def test_many_batches_of_one_turn_are_no_hang(
    monitor: Monitor, release: LoadedRelease
) -> None:
    engine = Engine(monitor, slices={}, max_queue_rows=1000, now_us=lambda: 0)
    engine.set_active(release, "incumbent", None)
    session = release.session = NotingSession(release.session, engine)
    rows = tiny_rows(40)[0]
    asked = [asyncio.create_task(engine.predict(rows)) for _ in range(6)]
    await asyncio.to_thread(session.reached.wait, 30)
    await asyncio.sleep(0)
    session.let_go.set()
    await asyncio.gather(*asked)
    assert len(session.since) == len(set(session.since)) > 1
    await engine.close()


async def test_a_runtime_that_hangs_shows_while_the_loop_goes_on(
    monitor: Monitor, release: LoadedRelease
) -> None:
    engine = Engine(monitor, slices={}, max_queue_rows=64, now_us=lambda: 0, hang_seconds=0.0)
    engine.set_active(release, "incumbent", None)
    listener = rest.listen(0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    serving = asyncio.create_task(rest.serve(rest.create_app(engine, "0.1.0"), listener))
    await asyncio.sleep(0)
    hanging = release.session = HangingSession(release.session)
    async with httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/healthz")).status_code == 200
        waiting = asyncio.create_task(engine.predict(tiny_rows(1)[0]))
        await asyncio.to_thread(hanging.reached.wait, 30)
        for path in ("/healthz", "/v2/health/live"):
            answer = await client.get(path)
            assert answer.status_code == 503
            assert "the runtime hangs" in answer.json()["error"]
        assert (await client.get("/readyz")).status_code == 200
        hanging.let_go.set()
        assert (await waiting)[0].label == "still"
        while (await client.get("/healthz")).status_code != 200:
            await asyncio.sleep(0.01)
        engine.set_active(None, "incumbent", None)
        assert (await client.get("/readyz")).status_code == 503
        await engine.close()
        answer = await client.get("/healthz")
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert (answer.status_code, "has ended" in answer.json()["error"]) == (503, True)
