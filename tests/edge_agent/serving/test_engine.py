import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.monitor import Monitor
from edge_agent.serving import batching
from edge_agent.serving.admission import MAX_ROWS_PER_REQUEST
from edge_agent.serving.engine import Engine
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.window_memory import MAX_STREAMS
from edge_core import outputs
from edge_core.errors import InvalidInput, Overloaded, Unavailable
from edge_core.messages.telemetry import TAG_BYTES, StatsWindow
from edge_core.stats.histogram import Histogram
from tests.simulators.failing_session import FailingSession
from tests.simulators.tiny_bundle import CLASSES, DEFINITION, tiny_rows

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def serving(
    monitor: Monitor, release: LoadedRelease | None, **settings: Any
) -> AsyncIterator[Engine]:
    options = {"slices": {"side": "left"}, "max_queue_rows": 4096, "now_us": lambda: 5_000_000}
    engine = Engine(monitor, **(options | settings))
    engine.set_active(release, "incumbent", "r1")
    try:
        yield engine
    finally:
        await engine.close()


def times(count: int, start: int = 0) -> np.ndarray:
    return start + 20_000 * np.arange(1, count + 1, dtype=np.int64)


def by_arm(windows: list[StatsWindow]) -> dict[str, StatsWindow]:
    assert len({window.arm for window in windows}) == len(windows)
    return {window.arm: window for window in windows}


async def until_shadowed(monitor: Monitor, rows: int) -> dict[str, StatsWindow]:
    """Close windows until the shadow has answered as many rows; counts add up over windows."""
    found: dict[str, StatsWindow] = {}
    async with asyncio.timeout(10):
        while True:
            await asyncio.sleep(0.01)
            found |= by_arm(monitor.close(6000))
            if "shadow" in found and found["shadow"].rows >= rows:
                return found


async def test_answers_are_those_of_the_bundle(monitor: Monitor, release: LoadedRelease) -> None:
    golden = release.golden()
    async with serving(monitor, release) as engine:
        answers = await engine.predict(golden.raw)
    scores = np.array([answer.scores for answer in answers], np.float32)
    np.testing.assert_array_equal(
        scores, outputs.probabilities(release.logits(golden.raw, golden.features))
    )
    first = answers[0]
    assert (first.model, first.version, first.digest) == (
        release.ref.model,
        release.ref.version,
        release.ref.digest,
    )
    assert first.label == CLASSES[int(scores[0].argmax())]
    assert first.confidence == pytest.approx(max(first.scores))
    assert first.served_by == "model"
    assert len({answer.id for answer in answers}) == len(answers)


async def test_requests_that_come_together_get_their_own_answers(
    monitor: Monitor, release: LoadedRelease
) -> None:
    samples, _ = tiny_rows(40)
    async with serving(monitor, release) as engine:
        together = await asyncio.gather(*(engine.predict(row[None]) for row in samples))
        alone = [await engine.predict(row[None]) for row in samples]
    assert [a[0].scores for a in together] == [a[0].scores for a in alone]
    assert by_arm(monitor.close(6000))["incumbent"].rows == 80


async def test_one_bad_request_spoils_no_other(monitor: Monitor, release: LoadedRelease) -> None:
    samples, _ = tiny_rows(8)
    broken = samples.copy()
    broken[3, 2, 1] = np.nan
    async with serving(monitor, release) as engine:
        results = await asyncio.gather(
            *(engine.predict(row[None]) for row in broken), return_exceptions=True
        )
    refused = [result for result in results if isinstance(result, BaseException)]
    assert len(refused) == 1
    assert isinstance(refused[0], InvalidInput)
    assert "ay" in str(refused[0])
    assert results.index(refused[0]) == 3


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        (np.zeros((1, 8, 3)), r"\[batch, 8, 2\] with the inputs ax, ay"),
        (np.zeros((1, 7, 2)), r"\[batch, 8, 2\]"),
        (np.zeros((8, 2)), r"\[batch, 8, 2\]"),
        (np.zeros((0, 8, 2)), "0 windows"),
        (np.zeros((MAX_ROWS_PER_REQUEST + 1, 8, 2)), "1025 windows"),
        ([["a", "b"]], "not an array of numbers"),
        (np.full((1, 8, 2), np.inf), "NaN or infinity in ax, ay"),
        (np.full((1, 8, 2), 1e300), "NaN or infinity in ax, ay"),
    ],
)
async def test_bad_rows_are_refused_by_name(
    monitor: Monitor, release: LoadedRelease, samples: Any, text: str
) -> None:
    async with serving(monitor, release) as engine:
        with pytest.raises(InvalidInput, match=text):
            await engine.predict(samples)
        assert await engine.predict(tiny_rows(1)[0])


async def test_a_stream_gives_the_features_of_whole_windows(
    monitor: Monitor, release: LoadedRelease
) -> None:
    rng = np.random.default_rng(3)
    samples = rng.normal(size=(30, 2)).astype(np.float32)
    when = times(30)
    whole = np.stack([samples[start : start + 8] for start in range(0, 23, 4)])
    async with serving(monitor, release) as engine:
        pushed = []
        for part in np.array_split(np.arange(30), 7):
            pushed += await engine.push("wrist", when[part], samples[part])
        asked = await engine.predict(whole)
    assert [a.scores for a in pushed] == [a.scores for a in asked]
    assert pushed[0].first_us == when[0]
    assert pushed[0].last_us == when[7]
    assert asked[0].last_us == 0


async def test_late_samples_are_dropped_and_counted(
    monitor: Monitor, release: LoadedRelease
) -> None:
    samples, _ = tiny_rows(1)
    async with serving(monitor, release) as engine:
        await engine.push("wrist", times(8), samples[0])
        assert await engine.push("wrist", times(8), samples[0]) == []
    assert by_arm(monitor.close(6000))["incumbent"].late == 8


async def test_the_stream_used_least_recently_goes_where_there_are_too_many(
    monitor: Monitor, release: LoadedRelease
) -> None:
    async with serving(monitor, release) as engine:
        for number in range(MAX_STREAMS):
            await engine.push(f"s{number}", times(1), np.zeros((1, 2)))
        await engine.push("s0", times(1, 20_000), np.zeros((1, 2)))
        await engine.push("one more", times(1), np.zeros((1, 2)))
        remembered = await engine.remembered()
        assert remembered is not None
        assert len(remembered.parts) == MAX_STREAMS
        assert {"s0", "one more"} <= set(remembered.parts)
        assert "s1" not in remembered.parts
        assert engine.remembering.counts["streams_dropped"] == 1
        with pytest.raises(InvalidInput, match="1 to 64 characters"):
            await engine.push("", times(1), np.zeros((1, 2)))


async def test_refused_pushes_open_no_stream(monitor: Monitor, release: LoadedRelease) -> None:
    async with serving(monitor, release) as engine:
        for number in range(MAX_STREAMS):
            with pytest.raises(InvalidInput):
                await engine.push(f"s{number}", times(1), np.full((1, 2), np.inf))
        remembered = await engine.remembered()
        assert remembered is not None
        assert remembered.parts == {}
        await engine.push("wrist", times(1), np.zeros((1, 2)))


async def test_an_overloaded_push_took_no_sample(monitor: Monitor, release: LoadedRelease) -> None:
    samples, _ = tiny_rows(1)
    async with serving(monitor, release, max_queue_rows=3) as engine:
        waiting = [
            asyncio.create_task(engine.predict(tiny_rows(2)[0])),
            asyncio.create_task(engine.push("wrist", times(8), samples[0])),
        ]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(results[1], Overloaded)
        assert len(await engine.push("wrist", times(8), samples[0])) == 1


@pytest.mark.parametrize("mode", ["refuses", "nan"])
async def test_the_baseline_answers_when_the_model_fails(
    monitor: Monitor, release: LoadedRelease, mode: str
) -> None:
    release.session = session = FailingSession(release.session)
    samples, _ = tiny_rows(6)
    async with serving(monitor, release) as engine:
        session.mode = mode
        answers = await engine.predict(samples)
        assert {answer.served_by for answer in answers} == {"fallback"}
        assert (engine.totals.rows, engine.totals.errors, engine.totals.fallbacks) == (0, 6, 6)
        session.mode = "works"
        assert (await engine.predict(samples))[0].served_by == "model"
        assert engine.feedback(answers[0].id, "still")
    windows = by_arm(monitor.close(6000))
    assert windows["incumbent"].errors == 6
    assert windows["incumbent"].rows == 6
    assert windows["fallback"].rows == 6
    assert sum(np.frombuffer(windows["fallback"].right, "<i8")) == 1


async def test_a_defect_gives_an_error_and_the_next_request_is_served(
    monitor: Monitor, release: LoadedRelease
) -> None:
    release.session = session = FailingSession(release.session)
    async with serving(monitor, release) as engine:
        session.mode = "crashes"
        with pytest.raises(Unavailable, match="a defect of the runtime"):
            await engine.predict(tiny_rows(2)[0])
        session.mode = "works"
        assert len(await engine.predict(tiny_rows(2)[0])) == 2
        assert (engine.totals.errors, engine.totals.rows) == (2, 2)  # else no probation sees it
    window = by_arm(monitor.close(6000))["incumbent"]
    assert (window.errors, window.rows) == (2, 2)


async def test_a_batch_that_cannot_be_counted_costs_no_others_counts(
    monitor: Monitor, release: LoadedRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failed = Histogram.update, []

    def update(self: Histogram, *parts: Any) -> None:
        if not failed:
            failed.append(1)
            raise MemoryError
        real(self, *parts)

    monkeypatch.setattr(Histogram, "update", update)  # no input is known that is not counted
    samples, _ = tiny_rows(400)
    async with serving(monitor, release) as engine:
        await engine.predict(samples)
        await asyncio.sleep(0)
        await engine.predict(samples)
    window = by_arm(monitor.close(6000))["incumbent"]
    assert sum(np.frombuffer(window.latency, "<i8")) == 400


async def test_statistics_count_every_answered_row_once(
    monitor: Monitor, release: LoadedRelease
) -> None:
    samples, _ = tiny_rows(150)
    async with serving(monitor, release) as engine:
        await engine.predict(samples[:100])
        await asyncio.gather(*(engine.predict(row[None]) for row in samples[100:]))
    window = by_arm(monitor.close(6000))["incumbent"]
    features = release.evaluator.evaluate(release.evaluator.quantise(samples))
    expected = Histogram(release.layout)
    expected.update(samples, features, outputs.probabilities(release.logits(samples, features)))
    assert window.counts == expected.to_bytes()
    assert window.rows == 150 == sum(np.frombuffer(window.latency, "<i8"))
    assert (window.rollout, window.slices) == ("r1", {"side": "left"})


async def test_labels_count_once_under_the_release_that_answered(
    monitor: Monitor, release: LoadedRelease, other: LoadedRelease
) -> None:
    samples, labels = tiny_rows(3)
    async with serving(monitor, release) as engine:
        answers = await engine.predict(samples)
        engine.set_active(other, "candidate", "r1")
        truth = [CLASSES[label] for label in labels]
        joined = [engine.feedback(a.id, t) for a, t in zip(answers, truth, strict=True)]
        assert joined == [True] * 3
        assert not engine.feedback(answers[0].id, truth[0])
        assert not engine.feedback("someone-else", truth[0])
        assert not engine.feedback(answers[0].id + "0", truth[0])
        with pytest.raises(InvalidInput, match="'dance' is not one of still, shake, tilt"):
            engine.feedback(answers[0].id, "dance")
    (window,) = monitor.close(7000)
    assert (window.release, window.arm) == (release.ref, "incumbent")
    assert sum(np.frombuffer(window.right, "<i8")) == 3


async def test_the_shadow_answers_the_same_rows_unseen(
    monitor: Monitor, release: LoadedRelease, other: LoadedRelease
) -> None:
    samples, labels = tiny_rows(30)
    async with serving(monitor, release) as engine:
        engine.set_shadow(other)
        answers = await engine.predict(samples)
        assert {answer.version for answer in answers} == {"1.0.0"}
        windows = await until_shadowed(monitor, 30)
        shadow = windows["shadow"]
        assert (shadow.release, shadow.paired_with) == (
            other.ref,
            release.ref.digest[: 2 * TAG_BYTES],
        )
        assert shadow.paired is not None
        assert shadow.paired.agree + shadow.paired.disagree == 30
        for answer, label in zip(answers, labels, strict=True):
            assert engine.feedback(answer.id, CLASSES[label])
        paired = by_arm(monitor.close(7000))["shadow"].paired
    assert paired is not None
    assert (
        paired.both_right
        + paired.only_active_right
        + paired.only_shadow_right
        + (paired.both_wrong)
        == 30
    )


async def test_a_failing_shadow_is_counted_and_hurts_nobody(
    monitor: Monitor, release: LoadedRelease, other: LoadedRelease
) -> None:
    other.session = session = FailingSession(other.session)
    session.mode = "crashes"
    async with serving(monitor, release) as engine:
        engine.set_shadow(other)
        await engine.predict(tiny_rows(5)[0])
        windows: dict[str, StatsWindow] = {}
        async with asyncio.timeout(10):
            while "shadow" not in windows:
                await asyncio.sleep(0.01)
                windows |= by_arm(monitor.close(6000))
        assert (windows["shadow"].errors, windows["shadow"].rows) == (5, 0)
        assert windows["shadow"].paired_with == release.ref.digest[: 2 * TAG_BYTES]
        assert len(await engine.predict(tiny_rows(5)[0])) == 5


async def test_a_change_of_release_keeps_open_windows(
    monitor: Monitor, release: LoadedRelease, other: LoadedRelease
) -> None:
    samples, _ = tiny_rows(1)
    async with serving(monitor, release) as engine:
        assert await engine.push("wrist", times(5), samples[0, :5]) == []
        engine.set_active(other, "candidate", "r2")
        (answer,) = await engine.push("wrist", times(3, start=100_000), samples[0, 5:])
    assert answer.version == "1.1.0"
    assert (engine.totals.rows, DEFINITION.window.samples) == (1, 8)


async def test_slices_have_to_be_declared(monitor: Monitor, release: LoadedRelease) -> None:
    samples, _ = tiny_rows(1)
    async with serving(monitor, release) as engine:
        await engine.predict(samples, {"side": "right"})
        with pytest.raises(InvalidInput, match=r"side=top is not declared.*side=left\|right"):
            await engine.predict(samples, {"side": "top"})
        with pytest.raises(InvalidInput, match="colour=red is not declared"):
            await engine.predict(samples, {"colour": "red"})
    (window,) = monitor.close(6000)
    assert window.slices == {"side": "right"}


async def test_without_a_release_the_answer_says_so(monitor: Monitor) -> None:
    async with serving(monitor, None) as engine:
        with pytest.raises(Unavailable, match="no release is active"):
            await engine.predict(tiny_rows(1)[0])


async def test_closing_answers_what_waits_and_refuses_the_rest(
    monitor: Monitor, release: LoadedRelease
) -> None:
    async with serving(monitor, release) as engine:
        waiting = [asyncio.create_task(engine.predict(row[None])) for row in tiny_rows(20)[0]]
        await asyncio.sleep(0)
        await engine.close()
        assert all(len(answer) == 1 for answer in await asyncio.gather(*waiting))
        with pytest.raises(Unavailable, match="stopping"):
            await engine.predict(tiny_rows(1)[0])
    assert by_arm(monitor.close(6000))["incumbent"].rows == 20


async def test_errands_after_the_end_touch_no_foreign_descriptor(
    monitor: Monitor, release: LoadedRelease, tmp_path: Path
) -> None:
    async with serving(monitor, release) as engine:
        await engine.close()
        taken = [os.open(tmp_path / str(number), os.O_RDWR | os.O_CREAT) for number in range(4)]
        engine.thread.post(lambda: None)  # such as a status that is told late
    for number, descriptor in enumerate(taken):
        os.close(descriptor)
        assert (tmp_path / str(number)).read_bytes() == b""


async def test_a_defect_does_not_end_the_inference_thread(
    monitor: Monitor, release: LoadedRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, _ = tiny_rows(3)
    async with serving(monitor, release) as engine:
        with monkeypatch.context() as broken:
            broken.setattr(batching, "parts", lambda _: 1 // 0)  # no input is known that does
            with pytest.raises(Unavailable, match="ZeroDivisionError"):
                await engine.predict(samples)
        assert len(await engine.predict(samples)) == 3
        engine.check_alive()
