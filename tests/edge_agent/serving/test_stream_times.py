"""A sensor's time that is far ahead of the clock spoils no stream, and none for ever."""

import numpy as np
import pytest

from edge_agent.sampling import Sampling
from edge_agent.serving.asking import SensorSamples
from edge_agent.serving.memory import Memory
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.times import MAX_AHEAD_US
from edge_agent.serving.window_memory import CLOCK_SET_US, MAX_STREAMS
from edge_core.errors import InvalidInput

NOW = 1_800_000_000_000_000
STEP = 20_000
ONCE = Sampling(1000)


@pytest.fixture
def memory(release: LoadedRelease) -> Memory:
    return release.begin()


def push(memory: Memory, start: int, now: int, *, count: int = 8, name: str = "wrist") -> int:
    """Push samples from a time on; how many windows they completed."""
    times = start + STEP * np.arange(count, dtype=np.int64)
    rows = memory.take(SensorSamples(name, times, np.ones((count, 2), np.float32)), now, ONCE)
    assert hasattr(rows, "raw")
    return len(rows.raw)


def test_samples_far_ahead_are_refused_and_counted(memory: Memory) -> None:
    with pytest.raises(InvalidInput, match=r"lies 3601 s ahead of this device's clock; 3600 s"):
        push(memory, NOW + MAX_AHEAD_US + 1_000_000 - 7 * STEP, NOW)
    assert memory.counts["samples_ahead"] == 8
    assert memory.snapshot() == {}
    assert push(memory, NOW, NOW) == 1, "and the stream is as it was"


def test_up_to_an_hour_is_allowed(memory: Memory) -> None:
    assert push(memory, NOW + MAX_AHEAD_US - 7 * STEP, NOW) == 1


def test_one_bad_sample_refuses_its_whole_push(memory: Memory) -> None:
    times = np.array([NOW, NOW + STEP, NOW + 10 * MAX_AHEAD_US])
    with pytest.raises(InvalidInput, match="ahead"):
        memory.take(SensorSamples("wrist", times, np.ones((3, 2), np.float32)), NOW, ONCE)
    assert memory.snapshot() == {}


def test_a_stream_that_a_wrong_clock_took_far_ahead_begins_anew(
    memory: Memory, release: LoadedRelease
) -> None:
    wrong = NOW + 1000 * MAX_AHEAD_US
    push(memory, wrong, wrong)
    restored = release.restore(memory.snapshot())
    for found in (memory, restored):
        assert push(found, NOW, NOW) == 1, "not late for ever"
        assert found.counts["streams_begun_anew"] == 1


def test_a_clock_that_was_never_set_judges_nothing(memory: Memory) -> None:
    assert push(memory, NOW, 5_000_000) == 1
    assert push(memory, NOW + 8 * STEP, CLOCK_SET_US - 1) == 2
    assert memory.counts == {"samples_ahead": 0, "streams_begun_anew": 0, "streams_dropped": 0}
    assert push(memory, NOW + 16 * STEP, NOW) == 2, "once it is right, the stream goes on"


def test_the_order_of_use_outlasts_a_restart(memory: Memory, release: LoadedRelease) -> None:
    for number in range(MAX_STREAMS):
        push(memory, NOW, NOW, count=1, name=f"s{number}")
    push(memory, NOW + STEP, NOW, count=1, name="s0")
    restored = release.restore(memory.snapshot())
    push(restored, NOW, NOW, count=1, name="one more")
    assert "s0" in restored.snapshot()
    assert "s1" not in restored.snapshot()
