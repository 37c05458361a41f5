import asyncio
import threading

import httpx
import pytest

from edge_agent.inference.session import Float32, Session
from edge_agent.monitor import Monitor
from edge_agent.serving import rest, thread
from edge_agent.serving.engine import Engine
from edge_agent.serving.pulse import Pulse
from edge_agent.serving.release import LoadedRelease
from edge_core.errors import Unavailable
from tests.simulators.tiny_bundle import tiny_rows

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_work_may_take_its_time_but_not_for_ever() -> None:
    clock, running = Clock(), threading.current_thread()
    pulse = Pulse(clock, limit_seconds=10)
    clock.now += 1000
    pulse.check(running)  # idle for long
    pulse.begin()
    clock.now += 10
    pulse.check(running)
    clock.now += 1
    with pytest.raises(Unavailable, match="at one batch for 11 s; the limit is 10 s"):
        pulse.check(running)
    pulse.end()
    pulse.check(running)


def test_a_thread_that_ended_is_dead() -> None:
    ended = threading.Thread(target=lambda: None)
    ended.start()
    ended.join()
    with pytest.raises(Unavailable, match="has ended; restart"):
        Pulse(Clock(), limit_seconds=10).check(ended)


class HangingSession:
    """A runtime that does not come back until it is let go."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.runtime, self.placement = session.runtime, session.placement
        self.reached, self.let_go = threading.Event(), threading.Event()

    def run(self, features: Float32) -> Float32:
        self.reached.set()
        assert self.let_go.wait(30)
        return self._session.run(features)


async def test_a_runtime_that_hangs_shows_while_the_loop_goes_on(
    monitor: Monitor, release: LoadedRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread, "HANG_SECONDS", 0.0)  # else the test would wait for it
    engine = Engine(monitor, slices={}, max_queue_rows=64, now_us=lambda: 0)
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
