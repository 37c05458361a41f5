"""Who answers, and what of it is said and counted, through the whole engine."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_agent.inference.session import Float32
from edge_agent.monitor import Monitor
from edge_agent.serving import standing
from edge_agent.serving.breaker import Limits
from edge_agent.serving.engine import Engine
from edge_agent.serving.policy import MAX_BREAKERS, Missing, Order, Policy
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.work import Terms
from edge_core import outputs
from edge_core.errors import InvalidInput
from edge_core.messages.telemetry import FallbackCounts, StatsWindow
from edge_core.stats.histogram import Histogram
from tests.simulators.failing_session import FailingSession
from tests.simulators.tiny_bundle import DEFINITION, TARGET, tiny_bundle, tiny_rows

pytestmark = pytest.mark.anyio

NULLABLE = ("ax", "ay", "ax_mean", "ay_mean")
LIMITS = Limits(failures_in_a_row=3, pause_seconds=10.0)


class Clock:
    """UTC and monotonic time that a test moves on."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now_us(self) -> int:
        return int(self.seconds * 1e6)

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def policy(clock: Clock, missing: Missing = "fallback") -> Policy:
    return Policy(LIMITS, now_us=clock.now_us, monotonic=clock.monotonic, missing=missing)


def engine_of(
    monitor: Monitor,
    release: LoadedRelease,
    clock: Clock,
    *,
    cache_rows: int = 0,
    **settings: Any,
) -> Engine:
    engine = Engine(
        monitor,
        slices={},
        max_queue_rows=4096,
        now_us=clock.now_us,
        cache_rows=cache_rows,
        policy=policy(clock, **settings),
    )
    engine.set_active(release, "incumbent", None)
    return engine


def windows_of(monitor: Monitor) -> dict[str, StatsWindow]:
    return {window.arm: window for window in monitor.close(2_000_000)}


async def test_an_order_is_followed_by_the_very_next_answer_and_ends_by_itself(
    monitor: Monitor, release: LoadedRelease, clock: Clock
) -> None:
    engine = engine_of(monitor, release, clock)
    samples = tiny_rows(4)[0]
    asked = FailingSession(release.session)
    release.session = asked
    assert [a.served_by for a in await engine.predict(samples)] == ["model"] * 4
    order = Order(model=release.ref.model, reason="storm", since_ms=1, until_ms=1_010_000)
    engine.policy.order([order])
    asked.mode = "crashes"  # it is not even asked
    answers = await engine.predict(samples)
    assert {(a.served_by, a.cause) for a in answers} == {("fallback", "command")}
    features = release.evaluator.evaluate(release.evaluator.quantise(samples))
    expected = outputs.probabilities(release.fallback_logits(features))
    np.testing.assert_array_equal(np.array([a.scores for a in answers], np.float32), expected)
    mode = engine.policy.mode(release)
    assert mode is not None
    assert (mode.cause, mode.reason, mode.until_ms) == ("command", "storm", 1_010_000)
    asked.mode = "works"
    clock.seconds = 1010.0
    assert {a.served_by for a in await engine.predict(samples)} == {"model"}
    assert engine.policy.mode(release) is None
    await engine.close()
    found = windows_of(monitor)
    assert found["fallback"].fallbacks == FallbackCounts(command=4)
    assert (found["incumbent"].rows, found["incumbent"].errors) == (8, 0)
    assert engine.totals.errors == 0, "an order is not the model's fault"


async def test_of_several_models_only_the_ordered_one_falls_back(
    monitor: Monitor, release: LoadedRelease, parcels: LoadedRelease, clock: Clock
) -> None:
    engine = engine_of(monitor, release, clock)
    engine.add_lane().set_active(parcels, "incumbent", None)
    engine.policy.order([Order(model=parcels.ref.model, reason="storm", since_ms=1)])
    [window] = await engine.predict(tiny_rows(1)[0], terms=Terms(model=release.ref.model))
    fields = {"place": ["a"], "size": [1.0]}
    [request] = await engine.ask(fields, terms=Terms(model=parcels.ref.model))
    assert (window.served_by, request.served_by) == ("model", "fallback")
    assert [mode.model for mode in standing.modes(engine)] == [parcels.ref.model]
    one, two = release.ref, parcels.ref
    status = standing.described(engine)
    assert status["active"] == f"{one.name}, {two.name}"
    assert status["answers"] == f"{one.model}: model; {two.model}: fallback by command"
    assert status["fallback_reason"] == f"{two.model}: storm"
    assert status["placement"] == f"{one.model}: {placed(release)}; {two.model}: {placed(parcels)}"
    assert (status["rows"], status["fallback_command"]) == (1, 1)
    assert {"samples_ahead", "times_ahead"} <= status.keys()  # what either memory counts
    await engine.close()


def placed(release: LoadedRelease) -> str:
    return ", ".join(f"{place}: {count}" for place, count in release.placed.operators.items())


async def test_the_cache_neither_outlasts_an_order_nor_speaks_for_the_model(
    monitor: Monitor, release: LoadedRelease, clock: Clock
) -> None:
    engine = engine_of(monitor, release, clock, cache_rows=64)
    session = FailingSession(release.session)
    release.session = session
    known, new = tiny_rows(1)[0], tiny_rows(2, seed=5)[0][1:]

    async def asked(rows: Any) -> tuple[str, str]:
        [answer] = await engine.predict(rows)
        return answer.served_by, answer.cause

    assert [await asked(known) for _ in range(2)] == [("model", ""), ("cache", "")]
    engine.policy.order([Order(model=release.ref.model, reason="", since_ms=1)])
    assert await asked(known) == ("fallback", "command")
    engine.policy.order([])
    session.mode = "refuses"
    for _ in range(3):
        assert await asked(new) == ("fallback", "error")
    assert await asked(known) == ("fallback", "breaker")
    clock.seconds += 10
    assert await asked(known) == ("cache", ""), "the model was not asked, so it is still on trial"
    assert await asked(new) == ("fallback", "error")
    assert await asked(new) == ("fallback", "breaker")
    await engine.close()


async def test_an_order_for_another_model_changes_nothing(
    monitor: Monitor, release: LoadedRelease, clock: Clock
) -> None:
    engine = engine_of(monitor, release, clock)
    engine.policy.order([Order(model="another", reason="", since_ms=1)])
    assert (await engine.predict(tiny_rows(1)[0]))[0].served_by == "model"
    await engine.close()


@pytest.mark.parametrize("mode", ["refuses", "nan"])
async def test_a_model_that_fails_is_left_alone_and_tried_again(
    monitor: Monitor, release: LoadedRelease, clock: Clock, mode: str
) -> None:
    engine = engine_of(monitor, release, clock)
    session = FailingSession(release.session)
    release.session = session
    session.mode = mode
    row = tiny_rows(1)[0]

    async def cause() -> str:
        [answer] = await engine.predict(row)
        return answer.cause

    assert [await cause() for _ in range(5)] == ["error"] * 3 + ["breaker"] * 2
    found = engine.policy.mode(release)
    assert found is not None
    assert (found.cause, found.since_ms) == ("breaker", 1_000_000)
    clock.seconds += 10
    assert [await cause() for _ in range(2)] == ["error", "breaker"], "one batch tried it"
    session.mode = "works"
    assert await cause() == "breaker"
    clock.seconds += 20
    assert [await cause() for _ in range(2)] == ["", ""]
    assert engine.policy.mode(release) is None
    await engine.close()
    counted = windows_of(monitor)
    assert counted["fallback"].fallbacks == FallbackCounts(error=4, breaker=4)
    assert counted["incumbent"].errors == 8, "what the breaker spares the model counts against it"
    assert engine.policy.rows == {"missing": 0, "error": 4, "breaker": 4, "command": 0}


async def test_another_release_begins_with_a_closed_breaker(
    monitor: Monitor, release: LoadedRelease, other: LoadedRelease, clock: Clock
) -> None:
    engine = engine_of(monitor, release, clock)
    session = FailingSession(release.session)
    release.session = session
    session.mode = "refuses"
    for _ in range(4):
        await engine.predict(tiny_rows(1)[0])
    engine.set_active(other, "incumbent", None)
    assert (await engine.predict(tiny_rows(1)[0]))[0].served_by == "model"
    await engine.close()


async def test_breakers_of_old_releases_are_forgotten(release: LoadedRelease, clock: Clock) -> None:
    found = policy(clock)
    for number in range(3 * MAX_BREAKERS):
        release.ref = msgspec.structs.replace(release.ref, digest=f"{number:064x}")
        found.failed(release, "a defect")
    assert len(found._breakers) == MAX_BREAKERS


async def test_rows_that_lack_samples_are_answered_by_the_baseline_alone(
    monitor: Monitor, release: LoadedRelease, clock: Clock
) -> None:
    engine = engine_of(monitor, release, clock)
    samples = tiny_rows(6)[0].copy()
    whole = await engine.predict(samples)
    samples[1, 3, 0] = np.nan
    samples[4, :, 1] = np.nan
    answers = await engine.predict(samples)
    causes = [answer.cause for answer in answers]
    assert causes == ["", "missing", "", "", "missing", ""]
    for place in (0, 2, 3, 5):
        assert answers[place].scores == whole[place].scores
    # Of row 1 seven samples are left; of row 4 the channel's features count as their mean.
    left = np.delete(samples[1], 3, axis=0)[:, 0].astype(np.float64)
    ax = np.rint(left * 1024) / 1024
    ay = np.rint(samples[1, :, 1].astype(np.float64) * 1024) / 1024
    features = np.array([[ax.mean(), ax.std(), ay.mean(), ay.std()]], np.float32)
    expected = outputs.probabilities(release.fallback_logits(features))[0]
    np.testing.assert_allclose(answers[1].scores, expected, rtol=1e-5)
    baseline = release.baseline
    ax = np.rint(samples[4, :, 0].astype(np.float64) * 1024) / 1024
    features = np.array([[ax.mean(), ax.std(), baseline.mean[2], baseline.mean[3]]], np.float32)
    expected = outputs.probabilities(release.fallback_logits(features))[0]
    np.testing.assert_allclose(answers[4].scores, expected, rtol=1e-5)
    assert len({answer.id for answer in answers}) == 6
    assert engine.feedback(answers[4].id, release.classes[0])
    await engine.close()
    found = windows_of(monitor)
    assert found["fallback"].fallbacks == FallbackCounts(missing=2)
    assert found["incumbent"].errors == 0
    counts = Histogram.from_bytes(release.layout, found["fallback"].counts)
    nulls = {name: counts.counts[release.layout.slice_of(name)][-1] for name in NULLABLE}
    assert nulls == {"ax": 1, "ay": 8, "ax_mean": 0, "ay_mean": 1}


async def test_a_stream_goes_on_over_missing_samples(
    monitor: Monitor, release: LoadedRelease, clock: Clock
) -> None:
    engine = engine_of(monitor, release, clock)
    samples = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    samples[5, 0] = np.nan
    times = 20_000 * np.arange(1, 21, dtype=np.int64)
    pushed = await engine.push("wrist", times[:7], samples[:7])
    assert pushed == []
    parts = await engine.remembered()
    assert parts is not None
    restored = release.restore(parts.parts, tolerates=True)
    assert restored.snapshot() == parts.parts
    pushed = await engine.push("wrist", times[7:], samples[7:])
    # Windows begin at samples 0, 4, 8 and 12; the first two hold the sample that lacks.
    assert [answer.cause for answer in pushed] == ["missing", "missing", "", ""]
    whole = np.stack([samples[start : start + 8] for start in (8, 12)])
    asked = await engine.predict(whole)
    assert [a.scores for a in asked] == [a.scores for a in pushed[2:]]
    await engine.close()


class OfWindows:
    """A session for raw windows, by features of them."""

    def __init__(self, release: LoadedRelease) -> None:
        self._evaluator, self._session = release.evaluator, release.session
        self.runtime, self.placement = self._session.runtime, self._session.placement
        self.absent: list[str] = []

    def run(self, rows: Float32) -> Float32:
        """Float32 [batch, samples, inputs] -> float32 [batch, classes]."""
        assert np.isfinite(rows).all(), "the model sees no missing sample"
        return self._session.run(self._evaluator.evaluate(self._evaluator.quantise(rows)))


@pytest.mark.parametrize("missing", ["fallback", "refuse"])
async def test_a_model_of_raw_windows_never_sees_a_missing_sample(
    monitor: Monitor, tmp_path: Path, clock: Clock, missing: Missing
) -> None:
    """Also where the definition lets the channel miss some: the model has no value for it."""
    replace = msgspec.structs.replace
    definition = replace(
        DEFINITION,
        inputs=[replace(entry, null_policy="skip") for entry in DEFINITION.inputs],
        features=[replace(feature, default=0.0) for feature in DEFINITION.features],
    )
    release = LoadedRelease.open(tiny_bundle(tmp_path, definition=definition), TARGET)
    release.manifest = replace(release.manifest, input="samples")
    release.session = OfWindows(release)
    engine = engine_of(monitor, release, clock, missing=missing)
    samples = tiny_rows(3)[0].copy()
    samples[1, 2, 0] = np.nan
    times = 20_000 * np.arange(1, 9, dtype=np.int64)
    if missing == "refuse":
        with pytest.raises(InvalidInput, match="a model of raw windows takes none"):
            await engine.predict(samples)
    else:
        causes = [answer.cause for answer in await engine.predict(samples)]
        assert causes == ["", "missing", ""]
        [pushed] = await engine.push("wrist", times, samples[1])
        assert pushed.cause == "missing"
    await engine.close()


async def test_what_is_infinite_is_not_missing(
    monitor: Monitor, release: LoadedRelease, clock: Clock
) -> None:
    engine = engine_of(monitor, release, clock)
    samples = tiny_rows(2)[0].copy()
    samples[0, 0, 0] = np.nan
    samples[1, 0, 1] = np.inf
    with pytest.raises(InvalidInput, match="NaN or infinity in"):
        await engine.predict(samples)
    await engine.close()


async def test_a_device_may_refuse_instead(
    monitor: Monitor, release: LoadedRelease, clock: Clock
) -> None:
    engine = engine_of(monitor, release, clock, missing="refuse")
    samples = tiny_rows(1)[0].copy()
    samples[0, 0, 0] = np.nan
    with pytest.raises(InvalidInput, match="NaN or infinity in ax"):
        await engine.predict(samples)
    with pytest.raises(InvalidInput, match="NaN or infinity in ax"):
        await engine.push("s", [1, 2], samples[0, :2])
    assert await engine.push("s", [1, 2], np.zeros((2, 2))) == [], "nothing was taken before"
    await engine.close()


async def test_a_request_without_a_field_is_answered_by_the_baseline(
    monitor: Monitor, parcels: LoadedRelease, clock: Clock
) -> None:
    engine = engine_of(monitor, parcels, clock)
    at = clock.now_us()
    await engine.observe(
        "parcels",
        [at - 5_000_000] * 3,
        [1, 2, 3],
        {"place": ["a", "a", "b"], "kind": ["box", None, "bag"], "weight": [1.0, 2.0, 3.0]},
        [at] * 3,
    )
    fields = {"at": [at, at, at], "place": ["a", None, "b"], "size": [1.0, 2.0, 3.0]}
    answers = await engine.ask(fields)
    assert [answer.cause for answer in answers] == ["", "missing", ""]
    alone = await engine.ask({"at": [at], "place": ["a"], "size": [1.0]})
    assert alone[0].scores == answers[0].scores
    # Features by place are unknown; those of the time, the size and of all parcels are not.
    whole = parcels.begin()
    names = parcels.definition.feature_names
    baseline = parcels.baseline
    unknown = {"count", "weight_sum", "weight_mean", "since"}
    known = {"kinds": 2.0, "heft": 2.0, "hour": float(hour_of(at))}
    features = np.array(
        [[baseline.mean[baseline.features.index(n)] if n in unknown else known[n] for n in names]],
        np.float32,
    )
    expected = outputs.probabilities(parcels.fallback_logits(features))[0]
    np.testing.assert_allclose(answers[1].scores, expected, rtol=1e-5)
    assert whole.tolerates is False
    absent = await engine.ask({"at": [at], "size": [1.0]})
    assert [answer.cause for answer in absent] == ["missing"]
    with pytest.raises(InvalidInput, match="unknown fields: plaice"):
        await engine.ask({"at": [at], "plaice": ["a"], "size": [1.0]})
    with pytest.raises(InvalidInput, match="order of time"):
        await engine.ask({"at": [at - 1], "place": [None], "size": [1.0]})
    await engine.close()
    assert windows_of(monitor)["fallback"].fallbacks == FallbackCounts(missing=2)


def hour_of(at_us: int) -> int:
    return (at_us // 1_000_000 + 3600) // 3600 % 24


async def test_a_request_that_lacks_a_field_is_refused_where_the_device_refuses(
    monitor: Monitor, parcels: LoadedRelease, clock: Clock
) -> None:
    engine = engine_of(monitor, parcels, clock, missing="refuse")
    with pytest.raises(InvalidInput, match="place is missing in row 0"):
        await engine.ask({"place": [None], "size": [1.0]})
    await engine.close()


def test_the_answer_s_last_fields_are_where_applications_look_for_them(tmp_path: Path) -> None:
    from edge_agent.serving.predictions import Prediction

    assert Prediction.__struct_fields__[5] == "served_by"
    assert Prediction.__struct_fields__[-1] == "cause"
