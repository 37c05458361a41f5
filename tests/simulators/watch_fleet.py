"""The applications on a fleet of smartwatches: they replay real recordings to real agents.

Each device belongs to one subject and one wrist, pushes that subject's recordings in an endless
loop with sensor time sped up, and reports each window's true exercise a while later. Run as a
process of its own: ``python -m tests.simulators.watch_fleet PLAN.json``.
"""

import asyncio
import itertools
import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.client import AsyncAgentClient
from edge_core import durable
from edge_core.errors import SerinusError
from firmware_bundles.watch_activity.data import Recording, load_recordings

STEP_US = 20_000  # 50 Hz
CHUNK = 100
PAUSE_US = 2_000_000  # between two recordings, so that no window spans both
TURNED_AXES = (1, 2)  # ay and az: the watch is worn upside down


class Wearer(msgspec.Struct, frozen=True, kw_only=True):
    """One device and whose recordings it replays."""

    device: str
    socket: str
    subject: int
    side: str
    offset: int


class ReplayPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the process does; files are how it is steered while it runs."""

    wearers: list[Wearer]
    speed: float
    label_delay_seconds: float
    turned_file: str
    """While this file exists, all sensors are upside down."""
    counts_file: str


class Counts(msgspec.Struct, kw_only=True):
    """What the applications saw."""

    samples: int = 0
    predictions: int = 0
    fallbacks: int = 0
    labels: int = 0
    unlabelled: int = 0
    errors: dict[str, int] = {}


def chunks(
    recordings: list[Recording], offset: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], str]]:
    """Endless (times [n] in us, samples [n, 6], true exercise) in sensor time."""
    clock = 0
    for recording in itertools.islice(itertools.cycle(recordings), offset, None):
        for start in range(0, len(recording.samples), CHUNK):
            samples = recording.samples[start : start + CHUNK].astype(np.float32)
            times = clock + STEP_US * np.arange(1, len(samples) + 1, dtype=np.int64)
            clock = int(times[-1])
            yield times, samples, recording.activity
        clock += PAUSE_US


async def wear(wearer: Wearer, plan: ReplayPlan, recordings: list[Recording], seen: Counts) -> None:
    """Push one wearer's day to its agent for ever, reconnecting when the agent restarts."""
    own = [r for r in recordings if r.subject == wearer.subject and r.side == wearer.side]
    pending: deque[tuple[float, str, str]] = deque()
    due = time.monotonic() + np.random.default_rng(wearer.offset).uniform(0, 0.2)
    source = chunks(own, wearer.offset)
    while True:
        try:
            async with AsyncAgentClient(wearer.socket) as client:
                for times, samples, activity in source:
                    due = max(due + len(samples) / 50 / plan.speed, time.monotonic() - 1)
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                    if Path(plan.turned_file).exists():
                        samples[:, TURNED_AXES] *= -1
                    answers = await client.push("wrist", times, samples)
                    seen.samples += len(samples)
                    seen.predictions += len(answers)
                    seen.fallbacks += sum(a.served_by == "fallback" for a in answers)
                    ripe = time.monotonic() + plan.label_delay_seconds
                    pending.extend((ripe, answer.id, activity) for answer in answers)
                    while pending and pending[0][0] <= time.monotonic():
                        _, prediction, truth = pending.popleft()
                        joined = await client.feedback(prediction, truth)
                        seen.labels += joined
                        seen.unlabelled += not joined
        except (SerinusError, OSError) as error:
            reason = f"{type(error).__name__}: {error}"[:120]
            seen.errors[reason] = seen.errors.get(reason, 0) + 1
            await asyncio.sleep(0.5)


async def replay(plan: ReplayPlan) -> None:
    """Run all wearers and keep the counts file fresh."""
    recordings = load_recordings()
    seen = Counts()
    async with asyncio.TaskGroup() as group:
        for wearer in plan.wearers:
            group.create_task(wear(wearer, plan, recordings, seen))
        while True:
            durable.write_bytes(Path(plan.counts_file), msgspec.json.encode(seen))
            await asyncio.sleep(1)


def main() -> None:
    """Read the plan and replay until killed."""
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=ReplayPlan)
    print(json.dumps({"wearers": len(plan.wearers), "speed": plan.speed}), flush=True)
    asyncio.run(replay(plan))


if __name__ == "__main__":
    main()
