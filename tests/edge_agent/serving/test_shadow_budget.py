"""Shadows use their share of a core and no more; live work never waits for them."""

import asyncio
import threading

import pytest

from edge_agent.inference.session import Float32, Session
from edge_agent.monitor import Monitor
from edge_agent.serving import shadowing
from edge_agent.serving.engine import Engine
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.shadow_budget import BURST_SECONDS, ShadowBudget
from edge_agent.serving.shadowing import MAX_SHADOW_BATCHES
from edge_core.messages.telemetry import TAG_BYTES
from tests.simulators.tiny_bundle import tiny_rows


def test_a_rested_bucket_pays_for_a_burst_and_then_for_the_share() -> None:
    budget, now, spent = ShadowBudget(0.2, 0.0), 0.0, 0.0
    while now < 100.0:
        if budget.allows(now):
            budget.spend(0.05, now)
            spent += 0.05
        now += 0.01
    assert spent == pytest.approx(BURST_SECONDS + 0.2 * 100.0, abs=0.06)


def test_a_costly_batch_is_paid_back_before_the_next() -> None:
    budget = ShadowBudget(0.1, 0.0)
    budget.spend(BURST_SECONDS + 2.0, 0.0)
    pause = budget.pause(10.0)
    assert pause == pytest.approx(10.0, abs=0.01)
    assert not budget.allows(19.9)
    assert budget.allows(10.0 + pause)


def test_without_a_share_nothing_is_ever_allowed() -> None:
    budget = ShadowBudget(0.0, 0.0)
    assert not budget.allows(1e9)
    assert budget.pause(1e9) is None


def test_a_clock_that_goes_back_gives_nothing() -> None:
    budget = ShadowBudget(0.5, 100.0)
    budget.spend(BURST_SECONDS + 1.0, 100.0)
    assert not budget.allows(50.0)
    assert not budget.allows(101.9)
    assert budget.allows(102.1)


class Recorded:
    """A session that notes each of its runs, and that may be held up."""

    def __init__(self, session: Session, name: str, order: list[str]) -> None:
        self._session = session
        self._name = name
        self._order = order
        self.runtime, self.placement = session.runtime, session.placement
        self.absent = session.absent
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()

    def run(self, rows: Float32) -> Float32:
        """Answer, after the gate opened."""
        self.reached.set()
        assert self.gate.wait(20)
        self._order.append(self._name)
        return self._session.run(rows)


@pytest.mark.anyio
async def test_live_work_goes_before_a_slow_shadow_and_what_it_cannot_do_is_told(
    monitor: Monitor, release: LoadedRelease, other: LoadedRelease
) -> None:
    """Requests that come while a shadow works are all answered before its next batch."""
    order: list[str] = []
    release.session = Recorded(release.session, "live", order)
    slow = other.session = Recorded(other.session, "shadow", order)
    engine = Engine(monitor, slices={}, max_queue_rows=4096, now_us=lambda: 5_000_000)
    engine.set_active(release, "incumbent", None)
    engine.set_shadow(other)
    row = tiny_rows(1)[0]
    slow.gate.clear()
    await engine.predict(row)
    reached = await _in_thread(slow.reached.wait)
    assert reached, "the shadow works on the first row"
    # Sixty requests come meanwhile; a turn of the thread answers them before anything else.
    waiting = [engine.predict(row) for _ in range(60)]
    tasks = [asyncio.create_task(request) for request in waiting]
    await asyncio.sleep(0)
    slow.gate.set()
    await asyncio.gather(*tasks)
    assert order[:2] == ["live", "shadow"]
    assert order[2] == "live", "no second batch of the shadow before what waits"
    await engine.close()


async def _in_thread(call: object) -> bool:
    return bool(await asyncio.to_thread(call, 20))  # type: ignore[arg-type]  # an event's wait


@pytest.mark.anyio
async def test_large_rows_that_wait_for_a_shadow_are_bounded_in_bytes(
    monitor: Monitor,
    release: LoadedRelease,
    other: LoadedRelease,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shadowing, "MAX_SHADOW_BYTES", 1000)
    engine = Engine(
        monitor, slices={}, max_queue_rows=4096, now_us=lambda: 5_000_000, shadow_cpu_share=0.0
    )
    engine.set_active(release, "incumbent", "r1")
    engine.set_shadow(other)
    size = 3 * 4 * (8 * 2 + len(release.definition.feature_names))
    for _ in range(20):
        await engine.predict(tiny_rows(3)[0])
    await engine.close()
    assert engine.shadow_dropped == 3 * (20 - 1000 // size)


@pytest.mark.anyio
async def test_rows_beyond_the_share_are_dropped_and_counted(
    monitor: Monitor, release: LoadedRelease, other: LoadedRelease
) -> None:
    engine = Engine(
        monitor, slices={}, max_queue_rows=4096, now_us=lambda: 5_000_000, shadow_cpu_share=0.0
    )
    engine.set_active(release, "incumbent", "r1")
    engine.set_shadow(other)
    for _ in range(MAX_SHADOW_BATCHES + 5):
        await engine.predict(tiny_rows(3)[0])
    await engine.close()
    assert engine.shadow_dropped == 15
    found = {window.arm: window for window in monitor.close(6000)}
    assert (found["shadow"].rows, found["shadow"].dropped) == (0, 15)
    assert found["shadow"].paired_with == release.ref.digest[: 2 * TAG_BYTES]
    assert found["incumbent"].rows == 3 * (MAX_SHADOW_BATCHES + 5)
