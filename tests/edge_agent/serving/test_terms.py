"""What a caller may ask beside its rows: a model, a deadline; and who asked is known."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent.monitor import Monitor
from edge_agent.serving import prediction_log
from edge_agent.serving.engine import Engine
from edge_agent.serving.prediction_log import PredictionLog
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.work import Terms
from edge_core.errors import DeadlineExceeded, InvalidInput, Unavailable, UnknownModel
from tests.simulators.failing_session import FailingSession
from tests.simulators.tiny_bundle import tiny_rows

pytestmark = pytest.mark.anyio

WINDOWS, PARCELS = "tiny-motion", "tiny-parcels"


@asynccontextmanager
async def engine(
    monitor: Monitor, *releases: LoadedRelease, **options: Any
) -> AsyncIterator[Engine]:
    made = Engine(monitor, slices={}, max_queue_rows=4096, now_us=lambda: 7_000_000, **options)
    for number, release in enumerate(releases):
        lane = made.add_lane() if number else made.lanes[0]
        lane.set_active(release, "incumbent", None)
    try:
        yield made
    finally:
        await made.close()


async def test_several_models_answer_side_by_side(
    monitor: Monitor, release: LoadedRelease, parcels: LoadedRelease
) -> None:
    samples, _ = tiny_rows(3)
    async with engine(monitor, release, parcels) as both:
        windows = await both.predict(samples, None, Terms(model=release.ref.model))
        requests = await both.ask(
            {"place": ["p1"], "size": [1.0]}, None, Terms(model=parcels.ref.model)
        )
        assert {answer.model for answer in windows} == {release.ref.model}
        assert {answer.model for answer in requests} == {parcels.ref.model}
        assert both.lanes[0].totals.rows == 3
        assert both.lanes[1].totals.rows == 1
        assert both.feedback(windows[0].id, release.classes[0])
        assert both.feedback(requests[0].id, parcels.classes[0])
    counted = {window.release: window.rows for window in monitor.close(9000)}
    assert counted == {release.ref: 3, parcels.ref: 1}


async def test_where_several_are_served_one_has_to_be_named(
    monitor: Monitor, release: LoadedRelease, parcels: LoadedRelease
) -> None:
    samples, _ = tiny_rows(1)
    async with engine(monitor, release, parcels) as both:
        with pytest.raises(InvalidInput, match="several models are served; name one of"):
            await both.predict(samples)
        with pytest.raises(UnknownModel, match=r"no model 'x+' here; served: "):
            await both.predict(samples, None, Terms(model="x" * 300))
        both.lanes[1].set_active(None, "incumbent", None)
        assert len(await both.predict(samples)) == 1
        both.lanes[0].set_active(None, "incumbent", None)
        with pytest.raises(Unavailable, match="no release is active"):
            await both.predict(samples)


async def test_a_label_of_one_model_is_none_of_another_s(
    monitor: Monitor, release: LoadedRelease, parcels: LoadedRelease
) -> None:
    samples, _ = tiny_rows(1)
    async with engine(monitor, release, parcels) as both:
        answer = (await both.predict(samples, None, Terms(model=release.ref.model)))[0]
        foreign = next(name for name in parcels.classes if name not in release.classes)
        with pytest.raises(InvalidInput, match="is not one of still, shake, tilt"):
            both.feedback(answer.id, foreign)
        assert both.feedback(answer.id, "still")


async def test_after_its_deadline_a_request_is_refused_and_nothing_is_computed(
    monitor: Monitor, release: LoadedRelease
) -> None:
    samples, _ = tiny_rows(2)
    async with engine(monitor, release) as served:
        with pytest.raises(DeadlineExceeded, match="ms before the model was free"):
            await served.predict(samples, None, Terms(deadline=time.perf_counter() - 1))
        with pytest.raises(DeadlineExceeded):
            await served.push("a", [1], [[1.0, 2.0]], None, Terms(deadline=1.0))
        late = Terms(deadline=time.perf_counter() + 60)
        assert len(await served.predict(samples, None, late)) == 2
        assert served.totals.rows == 2
        assert served.remembering.changes[1] == 0  # the refused push left no sample


async def test_rows_that_come_again_are_served_from_the_cache(
    monitor: Monitor, release: LoadedRelease
) -> None:
    samples, _ = tiny_rows(4)
    async with engine(monitor, release, cache_rows=16) as served:
        first = await served.predict(samples[:3])
        again = await served.predict(samples)
        assert [answer.served_by for answer in first] == ["model"] * 3
        assert [answer.served_by for answer in again] == ["cache"] * 3 + ["model"]
        assert [answer.scores for answer in again[:3]] == [answer.scores for answer in first]
        assert served.totals.cached == 3
        release.session = broken = FailingSession(release.session)
        broken.mode = "refuses"
        assert [a.served_by for a in await served.predict(samples)] == ["cache"] * 4


async def test_what_the_baseline_answered_is_not_kept(
    monitor: Monitor, release: LoadedRelease
) -> None:
    samples, _ = tiny_rows(2)
    async with engine(monitor, release, cache_rows=16) as served:
        release.session = broken = FailingSession(release.session)
        broken.mode = "nan"
        assert [a.served_by for a in await served.predict(samples)] == ["fallback"] * 2
        broken.mode = "works"
        assert [a.served_by for a in await served.predict(samples)] == ["model"] * 2


async def test_another_release_begins_with_an_empty_cache(
    monitor: Monitor, release: LoadedRelease, other: LoadedRelease
) -> None:
    samples, _ = tiny_rows(2)
    async with engine(monitor, release, cache_rows=16) as served:
        await served.predict(samples)
        served.set_active(other, "incumbent", None)
        answers = await served.predict(samples)
        assert {(a.version, a.served_by) for a in answers} == {("1.1.0", "model")}


async def test_every_answer_is_in_the_log(
    monitor: Monitor, release: LoadedRelease, other: LoadedRelease, tmp_path: Path
) -> None:
    samples, _ = tiny_rows(5)
    log = PredictionLog(tmp_path, max_bytes=1 << 20)
    async with engine(monitor, release, prediction_log=log) as served:
        first = await served.predict(samples, None, Terms(consumer="uid:7/camera"))
        served.set_active(other, "candidate", "r9")
        second = await served.predict(samples)
    for answer in (*first, *second):
        line = prediction_log.find(tmp_path, answer.id)
        assert line is not None
        told = (line.model, line.version, line.digest, line.target, line.runtime, line.served_by)
        assert told == (
            answer.model,
            answer.version,
            answer.digest,
            answer.target,
            answer.runtime,
            answer.served_by,
        )
    line = prediction_log.find(tmp_path, first[0].id)
    assert line is not None
    assert line.consumers == {"uid:7/camera": 5}
    assert prediction_log.find(tmp_path, "ffffffff-0") is None
    with pytest.raises(InvalidInput, match="no prediction id"):
        prediction_log.find(tmp_path, "whatever")


async def test_the_log_is_bounded_and_keeps_the_newest(
    monitor: Monitor, release: LoadedRelease, tmp_path: Path
) -> None:
    samples, _ = tiny_rows(1)
    log = PredictionLog(tmp_path, max_bytes=8192)
    async with engine(monitor, release, prediction_log=log) as served:
        answers = [(await served.predict(samples))[0] for _ in range(100)]
    assert sum(path.stat().st_size for path in tmp_path.glob("predictions.log*")) <= 8192
    assert prediction_log.find(tmp_path, answers[-1].id) is not None
    assert prediction_log.find(tmp_path, answers[0].id) is None


async def test_a_torn_line_costs_only_itself(
    monitor: Monitor, release: LoadedRelease, tmp_path: Path
) -> None:
    samples, _ = tiny_rows(1)
    path = tmp_path / prediction_log.NAME
    path.write_bytes(b'{"at_us": 1, "tok\n\xff\xfe\n{"at_us": 1')
    async with engine(
        monitor, release, prediction_log=PredictionLog(tmp_path, max_bytes=1 << 20)
    ) as served:
        answer = (await served.predict(samples))[0]
    assert prediction_log.find(tmp_path, answer.id) is not None


async def test_a_log_that_cannot_be_rotated_does_not_grow(
    monitor: Monitor, release: LoadedRelease, tmp_path: Path
) -> None:
    samples, _ = tiny_rows(1)
    path = tmp_path / prediction_log.NAME
    prediction_log.older(path).mkdir()  # in the way
    log = PredictionLog(tmp_path, max_bytes=4096)
    async with engine(monitor, release, prediction_log=log) as served:
        for _ in range(40):
            await served.predict(samples)
    assert path.stat().st_size <= 2048
    assert log.lost > 20


async def test_a_disk_that_fails_costs_lines_and_no_answer(
    monitor: Monitor, release: LoadedRelease, tmp_path: Path
) -> None:
    samples, _ = tiny_rows(1)
    (tmp_path / prediction_log.NAME).mkdir()  # nothing can be appended to a folder
    log = PredictionLog(tmp_path, max_bytes=1 << 20)
    async with engine(monitor, release, prediction_log=log) as served:
        assert [len(await served.predict(samples)) for _ in range(3)] == [1] * 3
    assert log.lost == 3


async def test_who_asks_is_counted_for_each_model(monitor: Monitor, release: LoadedRelease) -> None:
    samples, _ = tiny_rows(2)
    async with engine(monitor, release) as served:
        await served.predict(samples, None, Terms(consumer="uid:7/camera"))
        await served.predict(samples[:1], None, Terms(consumer="uid:8/belt"))
        await served.predict(samples)
    assert served.consumers == {"uid:7/camera", "uid:8/belt"}
