"""Trials that look at what a release really answers, through the real engine and monitor."""

import asyncio
from pathlib import Path

import numpy as np

from edge_agent.conduct import MAX_PERIODS, MAX_RELEASES, Conduct, Conducts
from tests.simulators.repository import RepositorySimulator
from tests.simulators.tiny_bundle import tiny_rows
from tests.simulators.updating import Device, device, run

ROWS = 96
SHAKE_ONLY = np.array([-50.0, 50.0, -50.0], np.float32)
TRIAL = {"probation_seconds": 0.5, "probation_rows": 60}


async def traffic(one: Device, rows: int = ROWS) -> None:
    """Different rows of all classes, a few at a time."""
    samples, _ = tiny_rows(rows, seed=5)
    for start in range(0, rows, 8):
        await one.engine.predict(samples[start : start + 8])


async def tried(one: Device) -> str:
    """Traffic until the trial is over; the state then."""
    async with asyncio.timeout(20):
        while True:
            await one.tick()
            if one.updater.entry.state == "probation":
                await traffic(one)
            elif not one.updater.busy:
                return one.updater.entry.state


def test_a_release_that_always_answers_the_same_does_not_outlive_its_trial(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    first, second = repository.publish("1.0.0"), repository.publish("1.1.0", seed=1)
    constant = repository.publish("2.0.0", seed=2, bias=SHAKE_ONLY)

    async def story() -> None:
        async with device(tmp_path / "state", repository, **TRIAL) as one:
            one.want(first)
            assert await tried(one) == "committed"
            await traffic(one)
            one.want(constant)
            assert await tried(one) == "failed"
            assert "100% of the answers are shake" in one.updater.entry.reason
            assert [r.release for r in one.updater.entry.refusals] == [constant]
            assert await one.serves() == "1.0.0"
            one.want(second)
            assert await tried(one) == "committed"

    run(story)


def test_the_first_release_of_a_process_has_nothing_to_be_compared_with(
    tmp_path: Path, repository: RepositorySimulator
) -> None:
    constant = repository.publish("2.0.0", seed=2, bias=SHAKE_ONLY)

    async def story() -> None:
        async with device(tmp_path / "state", repository, **TRIAL) as one:
            one.want(constant)
            assert await tried(one) == "committed"

    run(story)


def conduct(rows: int) -> Conduct:
    return Conduct(rows=rows, confidence=np.array([rows, 0]), predicted=np.array([rows]))


def test_conduct_is_kept_by_release_lately_and_as_a_whole_within_bounds() -> None:
    kept = Conducts()
    assert kept.total("a").rows == kept.lately("a").rows == 0
    for _ in range(MAX_PERIODS + 5):
        kept.add("a", conduct(10))
    assert kept.total("a").rows == 10 * (MAX_PERIODS + 5)
    assert kept.lately("a").rows == 10 * MAX_PERIODS
    assert kept.total("a").since(conduct(10)).confidence.tolist() == [10 * (MAX_PERIODS + 4), 0]
    for number in range(MAX_RELEASES):
        kept.add(str(number), conduct(1))
    assert kept.total("a").rows == 0
    assert kept.lately("a").rows == 0
    assert kept.total("0").rows == 1
