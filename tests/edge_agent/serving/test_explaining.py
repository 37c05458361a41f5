import asyncio
import time

import msgspec
import numpy as np
import pytest

from edge_agent.monitor import Monitor
from edge_agent.serving import admission, explaining, explanations
from edge_agent.serving.asking import Explain, Occlusion
from edge_agent.serving.engine import Engine
from edge_agent.serving.explanation import Explanation
from edge_agent.serving.memory import Rows
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.work import PLAIN, Answer, Terms
from edge_core import occlusion, outputs
from edge_core.errors import DeadlineExceeded, InvalidInput, Overloaded, Unavailable
from edge_core.occlusion import Effects
from edge_core.stats.histogram import Float32
from tests.simulators.failing_session import FailingSession
from tests.simulators.tiny_bundle import CLASSES, DEFINITION, tiny_rows
from tests.simulators.tiny_requests import BEGIN, SECOND, story

pytestmark = pytest.mark.anyio
END = BEGIN + 400 * SECOND


def by_hand(release: LoadedRelease, samples: Float32) -> Effects:
    """The occlusion of a tiny bundle's features, one at a time and in float64."""
    evaluator = release.evaluator
    features = evaluator.evaluate(evaluator.quantise(samples))
    plain = outputs.probabilities(release.session.run(features))
    changes = []
    for place, known in enumerate(release.reference.channels[2:-2]):
        other = features.copy()
        other[:, place] = occlusion.median(known)
        changes.append(plain - outputs.probabilities(release.session.run(other)))
    return Effects(plain, np.stack(changes, axis=1))


async def test_the_engine_explains_windows_by_features(
    monitor: Monitor, release: LoadedRelease
) -> None:
    samples, labels = tiny_rows(9)
    expected = by_hand(release, samples)
    engine = Engine(monitor, slices={}, max_queue_rows=2048, now_us=lambda: END)
    engine.set_active(release, "incumbent", None)
    found = await engine.explain(samples, Occlusion("features", per_class=True))
    await engine.close()
    assert (found.names, found.classes) == (DEFINITION.feature_names, CLASSES)
    assert (found.model, found.version, found.by) == ("tiny-motion", "1.0.0", "features")
    assert found.labels == [CLASSES[label] for label in labels]
    np.testing.assert_allclose(found.per_class, expected.changes, atol=1e-6)
    np.testing.assert_allclose(found.confidences, expected.probabilities.max(axis=1), atol=1e-6)
    own = [expected.changes[row, :, label] for row, label in enumerate(labels)]
    np.testing.assert_allclose(found.contributions, own, atol=1e-6)


async def test_raw_inputs_get_the_blame_that_is_theirs(
    monitor: Monitor, release: LoadedRelease
) -> None:
    """Shaking shows on ax alone, and a tilt on ay alone."""
    samples, labels = tiny_rows(30)
    engine = Engine(monitor, slices={}, max_queue_rows=2048, now_us=lambda: END)
    engine.set_active(release, "incumbent", None)
    found = await engine.explain(samples, Occlusion())
    await engine.close()
    assert (found.by, found.names, found.per_class) == ("inputs", ["ax", "ay"], [])
    contributions = np.array(found.contributions)
    shaken, tilted = contributions[labels == 1], contributions[labels == 2]
    assert (shaken[:, 0] > 0.5).all()
    assert (np.abs(shaken[:, 1]) < 0.1).all()
    assert (tilted[:, 1] > 0.5).all()
    assert (np.abs(tilted[:, 0]) < 0.1).all()


async def test_nothing_is_remembered_or_counted(
    monitor: Monitor, parcels: LoadedRelease, release: LoadedRelease
) -> None:
    engine = Engine(monitor, slices={}, max_queue_rows=2048, now_us=lambda: END)
    engine.set_active(parcels, "incumbent", None)
    events, _ = story()
    await engine.observe(
        "parcels", events.times_us, events.sequence, events.fields, events.arrived_us
    )
    before = await engine.remembered()
    assert before is not None
    asked = {"place": ["p1", "p2"], "size": [1.0, 2.0]}
    found = await engine.explain_requests(asked, Occlusion())
    after = await engine.remembered()
    answers = await engine.ask(asked)
    assert after is not None
    assert dict(after.parts) == dict(before.parts)
    assert (found.by, found.names) == ("features", parcels.definition.feature_names)
    assert found.confidences == [answer.confidence for answer in answers]
    assert found.labels == [answer.label for answer in answers]
    count = found.names.index("count")
    assert any(row[count] != 0 for row in found.contributions)
    await engine.close()
    assert [window.rows for window in monitor.close(2000)] == [2]
    assert sum(engine.tally.rows.values()) == 2


async def test_several_parts_give_what_one_would(
    monitor: Monitor, release: LoadedRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanations, "PART_ROWS", 7)  # smaller rounds than a test could fill
    samples, _ = tiny_rows(40)
    engine = Engine(monitor, slices={}, max_queue_rows=2048, now_us=lambda: END)
    engine.set_active(release, "incumbent", None)
    found = await engine.explain(samples, Occlusion("features", per_class=True))
    await engine.close()
    np.testing.assert_allclose(found.per_class, by_hand(release, samples).changes, atol=1e-6)


async def test_live_requests_go_first(monitor: Monitor, release: LoadedRelease) -> None:
    engine = Engine(monitor, slices={}, max_queue_rows=4096, now_us=lambda: END)
    engine.set_active(release, "incumbent", None)
    order: list[str] = []
    finished = asyncio.Event()

    def explained(_: Answer) -> None:
        order.append("explained")
        finished.set()

    engine.submit_explanation(tiny_rows(300)[0], Occlusion(), explained)
    for _ in range(5):
        engine.submit(tiny_rows(1)[0], {}, lambda _: order.append("answered"))
    await finished.wait()
    await engine.close()
    assert order == ["answered"] * 5 + ["explained"]


async def test_an_explanation_that_never_gets_its_turn_is_refused(
    monitor: Monitor, release: LoadedRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanations, "MAX_WAIT_SECONDS", -1.0)  # else the test would wait as long
    engine = Engine(monitor, slices={}, max_queue_rows=4096, now_us=lambda: END)
    engine.set_active(release, "incumbent", None)
    with pytest.raises(Overloaded, match="no time to explain"):
        await engine.explain(tiny_rows(1)[0], Occlusion())
    assert engine.waiting_rows == 0
    await engine.close()


async def test_everybody_is_answered_at_the_end(monitor: Monitor, release: LoadedRelease) -> None:
    engine = Engine(monitor, slices={}, max_queue_rows=4096, now_us=lambda: END)
    engine.set_active(release, "incumbent", None)
    answers: list[Answer] = []
    for _ in range(3):
        engine.submit_explanation(tiny_rows(300)[0], Occlusion(), answers.append)
    await engine.close()
    assert len(answers) == 3
    assert all(isinstance(answer, Explanation | Unavailable) for answer in answers)
    assert engine.waiting_rows == 0


async def test_what_waits_yields_and_is_refused_at_the_end(
    monitor: Monitor, release: LoadedRelease
) -> None:
    engine = Engine(monitor, slices={}, max_queue_rows=4096, now_us=lambda: END)
    engine.set_active(release, "incumbent", None)
    active, samples = engine.serving("tiny-motion"), tiny_rows(30)[0]
    work = admission.explanation(release, admission.windows(release, samples), Occlusion())
    assert isinstance(work.work, Explain)
    late = Terms(deadline=time.perf_counter() - 1)
    job, expired = (engine.admit(active, work, {}, print, terms, 0) for terms in (PLAIN, late))
    waiting = explanations.Explanations(4096)
    for one in (expired, job, job):
        waiting.add(one, work.work, Rows(samples, None))
    assert (len(waiting), waiting.rows) == (3, 270)
    ((refused, reason),) = waiting.step(idle=False)
    assert (refused, type(reason)) == (expired, DeadlineExceeded)
    assert waiting.step(idle=False) == []
    assert waiting.step(idle=True) == []  # 21 of 30 windows
    ((first, answer),) = waiting.step(idle=True)
    assert isinstance(answer, Explanation)
    assert (first, len(answer.labels), waiting.rows) == (job, 30, 90)
    ((_, stopping),) = waiting.abandon()
    assert isinstance(stopping, Unavailable)
    assert (len(waiting), waiting.rows) == (0, 0)
    await engine.close()


async def test_what_waits_to_be_explained_is_bounded_and_takes_no_live_request_s_place(
    monitor: Monitor, release: LoadedRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanations.Explanations, "step", lambda *_, **__: [])  # never idle
    engine = Engine(monitor, slices={}, max_queue_rows=30, now_us=lambda: END)
    engine.set_active(release, "incumbent", None)
    samples, _ = tiny_rows(8)
    answers: list[Answer] = []
    for _ in range(50):  # beginning from a turn of their own each, as those of the socket do
        engine.submit_explanation(samples, Occlusion(), answers.append)
        await engine.remembered()
    assert len(answers) == 49
    assert {type(answer) for answer in answers} == {Overloaded}
    assert len(await engine.predict(np.concatenate([samples] * 3))) == 24
    await engine.close()
    assert len(answers) == 50


async def test_rows_count_against_the_limit(monitor: Monitor, release: LoadedRelease) -> None:
    engine = Engine(monitor, slices={}, max_queue_rows=10, now_us=lambda: END)
    engine.set_active(release, "incumbent", None)
    samples, _ = tiny_rows(4)
    with pytest.raises(Overloaded):
        await engine.explain(samples, Occlusion())  # 4 windows, answered three times each
    assert len((await engine.explain(samples[:3], Occlusion())).labels) == 3
    assert engine.waiting_rows == 0
    await engine.close()


async def test_what_cannot_be_explained_is_refused(
    monitor: Monitor, release: LoadedRelease, parcels: LoadedRelease
) -> None:
    engine = Engine(monitor, slices={}, max_queue_rows=4096, now_us=lambda: END)
    engine.set_active(release, "incumbent", None)
    with pytest.raises(InvalidInput, match="342 rows in one explanation"):
        await engine.explain(tiny_rows(342)[0], Occlusion())
    with pytest.raises(InvalidInput, match="infinity"):
        await engine.explain(np.full((1, 8, 2), np.inf), Occlusion())
    with pytest.raises(InvalidInput, match="use predict and push"):
        await engine.explain_requests({}, Occlusion())
    engine.set_active(parcels, "incumbent", None)
    with pytest.raises(InvalidInput, match="explain them by features"):
        await engine.explain_requests({"place": ["a"], "size": [1.0]}, Occlusion("inputs"))
    with pytest.raises(InvalidInput, match="fields are missing: size"):
        await engine.explain_requests({"place": ["a"]}, Occlusion())
    with pytest.raises(InvalidInput, match="use ask and observe"):
        await engine.explain(tiny_rows(1)[0], Occlusion())
    await engine.close()
    with pytest.raises(Unavailable):
        await engine.explain(tiny_rows(1)[0], Occlusion())


def test_a_model_of_raw_windows_has_no_features_to_explain_by(release: LoadedRelease) -> None:
    release.manifest = msgspec.structs.replace(release.manifest, input="samples")
    assert explaining.occluded(release, None) == ("inputs", ["ax", "ay"])
    with pytest.raises(InvalidInput, match="takes raw windows; explain them by inputs"):
        explaining.occluded(release, "features")


async def test_a_failing_model_explains_nothing(monitor: Monitor, release: LoadedRelease) -> None:
    engine = Engine(monitor, slices={}, max_queue_rows=4096, now_us=lambda: END)
    engine.set_active(release, "incumbent", None)
    failing = release.session = FailingSession(release.session)
    for mode in ("refuses", "nan", "crashes"):
        failing.mode = mode
        with pytest.raises(Unavailable):
            await engine.explain(tiny_rows(1)[0], Occlusion())
    failing.mode = "works"
    assert (await engine.explain(tiny_rows(1)[0], Occlusion())).labels == ["still"]
    assert engine.waiting_rows == 0
    await engine.close()
