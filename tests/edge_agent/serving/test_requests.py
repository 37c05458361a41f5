"""Events and requests through a real engine: order, time, limits, and what becomes of memory."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from edge_agent.monitor import Monitor
from edge_agent.sampling import Sampling
from edge_agent.serving.admission import MAX_EVENTS_PER_REQUEST, MAX_ROWS_PER_REQUEST
from edge_agent.serving.asking import NewEvents
from edge_agent.serving.engine import Engine
from edge_agent.serving.predictions import Prediction
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.request_memory import RequestMemory
from edge_agent.serving.times import MAX_AHEAD_US
from edge_core import outputs
from edge_core.errors import InvalidInput, Overloaded, Unavailable
from edge_core.features import logs
from edge_core.features.over_time import CountWithin
from edge_core.features.request_evaluation import Observed, RequestEvaluator
from edge_core.stats.histogram import Histogram
from tests.simulators.failing_session import FailingSession
from tests.simulators.tiny_requests import BEGIN, DEFINITION, SECOND, Story, define, story

pytestmark = pytest.mark.anyio
END = BEGIN + 300 * SECOND


class Clock:
    """Microseconds that a test moves."""

    def __init__(self) -> None:
        self.now = END

    def __call__(self) -> int:
        return self.now


@asynccontextmanager
async def serving(
    monitor: Monitor, release: LoadedRelease | None, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[Engine]:
    options = {"slices": {"side": "left"}, "max_queue_rows": 4096}
    engine = Engine(monitor, now_us=clock or Clock(), **(options | settings))
    engine.set_active(release, "incumbent", None)
    try:
        yield engine
    finally:
        await engine.close()


def rows_of(told: Story, places: list[int]) -> dict[str, Any]:
    return {
        name: [column[p] for p in places] if isinstance(column, list) else column[places]
        for name, column in told.request.items()
    }


async def tell(engine: Engine, told: Story, *, together: bool = False) -> list[Prediction]:
    """Events and requests one by one in order of arrival; an event of a moment comes first."""
    arrived = np.asarray(told.events.arrived_us)
    steps = [(int(when), 0, place) for place, when in enumerate(arrived)]
    steps += [(int(when), 1, place) for place, when in enumerate(told.request["at"])]
    work: list[Any] = []
    for _, kind, place in sorted(steps):
        if kind:
            work.append(engine.ask(rows_of(told, [place])))
        else:
            one = told.events.only(np.array([place]))
            work.append(
                engine.observe("parcels", one.times_us, one.sequence, one.fields, one.arrived_us)
            )
    if together:
        done = await asyncio.gather(*work)
    else:
        done = [await job for job in work]
    return [answer[0] for answer in done if not isinstance(answer, Observed)]


def scores_of(release: LoadedRelease, told: Story) -> list[list[float]]:
    features = RequestEvaluator(DEFINITION).replay({"parcels": told.events}, told.request)
    return outputs.probabilities(release.logits(features, features)).tolist()


async def observe(engine: Engine, time: int | None = None, **changes: Any) -> Observed:
    """One parcel, at the given time or just now."""
    moment = END if time is None else time
    fields = {"place": ["p1"], "kind": ["box"], "weight": np.float32([2.0])}
    fields |= {name: value for name, value in changes.items() if name in fields}
    return await engine.observe(
        changes.get("stream", "parcels"),
        changes.get("times", np.array([moment])),
        changes.get("sequence", np.array([1])),
        fields | changes.get("more", {}),
        changes.get("arrived"),
    )


def request(**changes: Any) -> dict[str, Any]:
    return {"place": ["p1"], "size": np.float32([3.0])} | changes


@pytest.mark.parametrize("together", [False, True])
async def test_answers_are_those_of_the_log_at_once(
    monitor: Monitor, parcels: LoadedRelease, together: bool
) -> None:
    told = story()
    async with serving(monitor, parcels) as engine:
        answers = await tell(engine, told, together=together)
    assert [answer.scores for answer in answers] == scores_of(parcels, told)
    assert [answer.last_us for answer in answers] == told.request["at"].tolist()
    assert {answer.served_by for answer in answers} == {"model"}


async def test_statistics_are_of_the_requests_numbers_and_features(
    monitor: Monitor, parcels: LoadedRelease
) -> None:
    told = story()
    async with serving(monitor, parcels) as engine:
        await tell(engine, told, together=True)
        observed = await observe(engine, END - 61 * SECOND)
        assert observed.dropped.expired == 1
    windows = {window.arm: window for window in monitor.close(6000)}
    window = windows["incumbent"]
    expected = Histogram(parcels.layout)
    features = RequestEvaluator(DEFINITION).replay({"parcels": told.events}, told.request)
    scores = outputs.probabilities(parcels.logits(features, features))
    expected.update(logs.numbers(DEFINITION, told.request), features, scores)
    assert window.counts == expected.to_bytes()
    assert (window.rows, window.late, window.slices) == (60, 1, {"side": "left"})


async def test_without_a_time_a_request_is_of_now(monitor: Monitor, parcels: LoadedRelease) -> None:
    clock = Clock()
    async with serving(monitor, parcels, clock) as engine:
        await observe(engine, END - SECOND)
        (one,) = await engine.ask(request())
        (same,) = await engine.ask(request(at=np.array([END])))
        clock.now += 7
        several = await engine.ask(request(place=["p1", "p2"], size=np.float32([3, 3])))
    assert (one.first_us, one.last_us) == (END, END)
    assert one.scores == same.scores
    assert [answer.last_us for answer in several] == [END + 7] * 2
    assert several[0].scores != several[1].scores


async def test_an_event_of_this_very_moment_is_taken_and_not_seen_yet(
    monitor: Monitor, parcels: LoadedRelease
) -> None:
    async with serving(monitor, parcels) as engine:
        (before,) = await engine.ask(request())
        assert (await observe(engine, END)).taken == 1
        (now,) = await engine.ask(request())
        (later,) = await engine.ask(request(at=[END + 1]))
    assert before.scores == now.scores != later.scores


async def test_a_clock_that_jumps_back_stands_still_and_is_counted(
    monitor: Monitor, parcels: LoadedRelease, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    with caplog.at_level(logging.WARNING):
        async with serving(monitor, parcels, clock) as engine:
            await engine.ask(request())
            clock.now -= 3600 * SECOND
            assert (await observe(engine, END - SECOND)).taken == 1
            (answer,) = await engine.ask(request())
            assert answer.last_us == END
            assert engine.remembering.clock_held == 2
            clock.now = END + SECOND
            (answer,) = await engine.ask(request())
            assert answer.last_us == END + SECOND
            assert engine.remembering.clock_held == 2
    assert caplog.text.count("the clock is 3600.0 s behind") == 1


async def test_a_clock_that_jumps_ahead_makes_events_old(
    monitor: Monitor, parcels: LoadedRelease
) -> None:
    clock = Clock()
    async with serving(monitor, parcels, clock) as engine:
        clock.now += 3600 * SECOND
        await engine.ask(request())
        clock.now = END
        assert (await observe(engine, END)).dropped.expired == 1


async def test_times_far_ahead_of_the_clock_are_refused(
    monitor: Monitor, parcels: LoadedRelease
) -> None:
    async with serving(monitor, parcels) as engine:
        far = END + MAX_AHEAD_US + 1
        with pytest.raises(InvalidInput, match=r"at lies 3600 s ahead of this device's clock"):
            await engine.ask(request(at=[far]))
        with pytest.raises(InvalidInput, match=r"an arrival lies 3600 s ahead"):
            await observe(engine, arrived=np.array([far]))
        (answer,) = await engine.ask(request())
        assert answer.last_us == END
        assert (await engine.ask(request(at=[far - 1])))[0].last_us == far - 1


async def test_two_that_ask_at_once(monitor: Monitor, parcels: LoadedRelease) -> None:
    """Without times each is answered as of its turn; with times the one before is refused."""
    async with serving(monitor, parcels) as engine:
        both = await asyncio.gather(engine.ask(request()), engine.ask(request()))
        assert [answer.last_us for (answer,) in both] == [END, END]
        found = await asyncio.gather(
            engine.ask(request(at=[END + 20])),
            engine.ask(request(at=[END + 10])),
            engine.ask(request()),
            return_exceptions=True,
        )
    assert isinstance(found[1], InvalidInput)
    assert "do not come in order of time" in str(found[1])
    assert [answer[0].last_us for answer in (found[0], found[2])] == [END + 20] * 2  # type: ignore[index]


async def test_what_was_dropped_is_said(monitor: Monitor, parcels: LoadedRelease) -> None:
    async with serving(monitor, parcels) as engine:
        assert (await observe(engine)).taken == 1
        assert (await observe(engine)).dropped.duplicate == 1
        assert (await observe(engine, END + 2 * SECOND)).dropped.ahead == 1
        assert (await observe(engine, END - 61 * SECOND)).dropped.expired == 1
        assert (await observe(engine, END + SECOND)).taken == 1
    (window,) = monitor.close(6000)
    assert (window.rows, window.late) == (0, 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stream": "letters"}, "unknown stream letters; the definition has parcels"),
        ({"more": {"colour": ["red"]}}, "unknown fields: colour; known are place, kind, weight"),
        ({"place": [None]}, "place is missing in row 0"),
        ({"place": ["p" * 65]}, "place has a text of more than 64 characters"),
        ({"place": [7]}, "place is no column of texts"),
        ({"place": b"p"}, "place is sent as bytes"),
        ({"weight": np.float32([np.inf])}, "weight is infinite"),
        ({"weight": [1e300]}, "weight is infinite"),
        ({"weight": ["1.5"]}, "weight is no column of numbers"),
        ({"weight": b"12345"}, "weight has 5 bytes"),
        ({"weight": np.float32([[1.0]])}, "a flat column is needed"),
        ({"weight": np.float32([1, 2])}, "columns have different lengths"),
        ({"times": np.array([1.5])}, "event_time is no column of whole microseconds"),
        ({"times": np.array([2**62])}, "beyond 2"),
        ({"times": np.array([END, END])}, "different lengths"),
        ({"sequence": np.array([], np.int64)}, "different lengths"),
        ({"arrived": np.array([END, END])}, "different lengths"),
        ({"arrived": np.array([END - 5])}, "do not come in order of arrival"),
    ],
)
async def test_bad_events_are_refused_by_name(
    monitor: Monitor, parcels: LoadedRelease, changes: dict[str, Any], said: str
) -> None:
    async with serving(monitor, parcels) as engine:
        await engine.ask(request())
        with pytest.raises(InvalidInput, match=said):
            await observe(engine, **changes)
        assert (await observe(engine)).taken == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": ["red"]}, "unknown fields: colour"),
        ({"place": [None]}, "place is missing in row 0"),
        ({"place": ["p" * 65]}, "more than 64 characters"),
        ({"place": ["a", "b"]}, "different lengths"),
        ({"size": np.float32([-np.inf])}, "size is infinite"),
        ({"size": ["big"]}, "size is no column of numbers"),
        ({"at": [None]}, "at is missing"),
        ({"at": [1.5]}, "at is no column of whole microseconds"),
        ({"at": [END - 1]}, "requests do not come in order of time"),
        ({"at": [END + 1, END]}, "different lengths"),
        ({"place": [["nested"]]}, "place is no column of texts"),
    ],
)
async def test_bad_requests_are_refused_by_name(
    monitor: Monitor, parcels: LoadedRelease, changes: dict[str, Any], said: str
) -> None:
    # Every request is sampled here: the evidence may not trip over what is refused.
    monitor = Monitor(device="d1", sample_every=1, now_ms=0)
    async with serving(monitor, parcels) as engine:
        await engine.ask(request())
        with pytest.raises(InvalidInput, match=said):
            await engine.ask(request(**changes))
        with pytest.raises(InvalidInput, match="fields are missing: place"):
            await engine.ask({"size": [1.0]})
        assert len(await engine.ask(request(size=[None]))) == 1


async def test_too_much_in_one_go_is_refused(monitor: Monitor, parcels: LoadedRelease) -> None:
    async with serving(monitor, parcels) as engine:
        for count in (0, MAX_EVENTS_PER_REQUEST + 1, 100_000):
            fields = {"place": ["p"] * count, "kind": ["x"] * count, "weight": np.ones(count)}
            with pytest.raises(InvalidInput, match=f"{count} events in one go; send 1 to 4096"):
                await engine.observe("parcels", np.zeros(count, int), np.arange(count), fields)
        for count in (0, MAX_ROWS_PER_REQUEST + 1):
            with pytest.raises(InvalidInput, match=f"{count} requests in one request"):
                await engine.ask({"place": ["p"] * count, "size": np.ones(count)})


async def test_events_wait_within_the_queue_s_bound(
    monitor: Monitor, parcels: LoadedRelease
) -> None:
    count = 1600  # as costly as 101 rows
    fields = {"place": ["p"] * count, "kind": ["x"] * count, "weight": np.ones(count)}
    async with serving(monitor, parcels, max_queue_rows=150) as engine:
        found = await asyncio.gather(
            *(
                engine.observe("parcels", np.full(count, END), np.arange(count), fields)
                for _ in range(2)
            ),
            return_exceptions=True,
        )
        assert isinstance(found[0], Observed)
        assert isinstance(found[1], Overloaded)
        assert (await observe(engine, sequence=np.array([count + 5]))).taken == 1


def test_a_million_entities_stay_within_bounds() -> None:
    count = CountWithin(name="count", stream="parcels", by={"place": "place"}, within_s=60)
    memory = RequestMemory(RequestEvaluator(define(features=(count,))))
    evicted = taken = 0
    size = MAX_EVENTS_PER_REQUEST
    for start in range(0, 1_000_000, size):
        numbers = range(start, min(start + size, 1_000_000))
        fields: dict[str, Any] = {
            "place": [f"p{number}" for number in numbers],
            "kind": [None] * len(numbers),
            "weight": np.ones(len(numbers), np.float32),
        }
        work = NewEvents("parcels", np.full(len(numbers), END), np.array(numbers), fields, None)
        found = memory.take(work, END, Sampling(1))
        assert isinstance(found, Observed)
        taken += found.taken
        evicted += found.dropped.evicted
    assert (taken, evicted) == (1_000_000, 1_000_000 - 64)
    assert sum(map(len, memory.snapshot().values())) < 8 * 1024


async def test_each_kind_of_release_refuses_the_other_s_work(
    monitor: Monitor, release: LoadedRelease, parcels: LoadedRelease
) -> None:
    async with serving(monitor, parcels) as engine:
        with pytest.raises(
            InvalidInput, match=r"tiny-parcels@1\.0\.0 answers requests, not sensor"
        ):
            await engine.predict(np.zeros((1, 8, 2)))
        with pytest.raises(InvalidInput, match="use ask and observe"):
            await engine.push("wrist", np.arange(3), np.zeros((3, 2)))
    async with serving(monitor, release) as engine:
        with pytest.raises(InvalidInput, match="answers sensor windows, not requests"):
            await engine.ask(request())
        with pytest.raises(InvalidInput, match="use predict and push"):
            await observe(engine)
    async with serving(monitor, None) as engine:
        for work in (engine.ask(request()), observe(engine)):
            with pytest.raises(Unavailable, match="no release is active"):
                await work


@pytest.mark.parametrize("mode", ["refuses", "nan"])
async def test_the_baseline_answers_when_the_model_fails(
    monitor: Monitor, parcels: LoadedRelease, mode: str
) -> None:
    parcels.session = session = FailingSession(parcels.session)
    async with serving(monitor, parcels) as engine:
        session.mode = mode
        await observe(engine, END - 1)
        (answer,) = await engine.ask(request())
        assert answer.served_by == "fallback"
        session.mode = "works"
        assert (await engine.ask(request()))[0].served_by == "model"
    windows = {window.arm: window for window in monitor.close(6000)}
    assert (windows["fallback"].rows, windows["incumbent"].errors) == (1, 1)


async def test_a_shadow_of_the_same_definition_takes_the_features(
    monitor: Monitor, parcels: LoadedRelease, other_parcels: LoadedRelease
) -> None:
    told = story(requests=20)
    async with serving(monitor, parcels) as engine:
        engine.set_shadow(other_parcels)
        await tell(engine, told)
        async with asyncio.timeout(10):
            rows = 0
            while rows < 20:
                await asyncio.sleep(0.01)
                shadow = [w for w in monitor.close(6000) if w.arm == "shadow"]
                rows += sum(window.rows for window in shadow)
                assert all(window.errors == 0 for window in shadow)


async def test_a_shadow_of_another_definition_is_refused(
    monitor: Monitor,
    release: LoadedRelease,
    parcels: LoadedRelease,
    changed_parcels: LoadedRelease,
) -> None:
    async with serving(monitor, parcels) as engine:
        for shadow in (changed_parcels, release):
            with pytest.raises(InvalidInput, match="nothing is remembered for its features"):
                engine.set_shadow(shadow)
        assert engine.shadow is None


async def test_memory_goes_on_with_the_same_definition_and_begins_empty_with_another(
    monitor: Monitor,
    parcels: LoadedRelease,
    other_parcels: LoadedRelease,
    changed_parcels: LoadedRelease,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(monitor, parcels) as engine:
        assert engine.remembering.beginning == "empty"
        (nothing,) = await engine.ask(request())
        await observe(engine, END - 1)
        (seen,) = await engine.ask(request())
        engine.set_active(other_parcels, "candidate", None)
        assert engine.remembering.beginning == "went on"
        engine.set_active(None, "incumbent", None)
        engine.set_active(parcels, "incumbent", None)
        assert engine.remembering.beginning == "went on"
        assert (await engine.ask(request()))[0].scores == seen.scores
        assert not caplog.records
        engine.set_active(changed_parcels, "candidate", None)
        assert engine.remembering.beginning == "empty"
        assert "tiny-parcels@2.0.0 has other features than the release before" in caplog.text
        assert (await engine.ask(request()))[0].scores == nothing.scores
        engine.set_active(parcels, "incumbent", None)
        assert (await engine.ask(request()))[0].scores == nothing.scores != seen.scores


async def test_work_in_the_queue_belongs_to_the_release_that_it_came_for(
    monitor: Monitor, parcels: LoadedRelease, changed_parcels: LoadedRelease
) -> None:
    async with serving(monitor, parcels) as engine:
        waiting = [
            asyncio.create_task(observe(engine, END - 1)),
            asyncio.create_task(engine.ask(request())),
        ]
        await asyncio.sleep(0)
        engine.set_active(changed_parcels, "candidate", None)
        observed, answers = await asyncio.gather(*waiting)
        assert isinstance(observed, Observed)
        assert not isinstance(answers, Observed)
        assert answers[0].version == "1.0.0"
        assert (await engine.ask(request()))[0].version == "2.0.0"
