"""Samples of a real engine through the real ingest: what a device computes wrongly is named."""

import asyncio
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_agent.monitor import Monitor
from edge_agent.serving.engine import Engine
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.request_memory import RequestMemory
from edge_agent.serving.window_memory import WindowMemory
from edge_core import packed
from edge_core.features import logs, registered
from edge_core.features.evaluation import Evaluator
from edge_core.features.logs import Log
from edge_core.features.over_rows import Registered
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.messages import codec, topics
from edge_core.messages.telemetry import MAX_EVIDENCE_BYTES, Sample, Sample1
from fleet_client.views import releases as views
from fleet_server.repository_watch import RepositoryWatch
from fleet_server.services.catalog import Catalog
from fleet_server.services.cost import Costs
from fleet_server.services.ingest import Inbound, Ingest
from fleet_server.services.overview import Overview
from fleet_server.services.views import ParityView
from fleet_server.storage import journal, parity_counts
from fleet_server.storage.database import Database
from tests.simulators import faulty_features as faulty
from tests.simulators.tiny_bundle import TARGET, tiny_rows
from tests.simulators.tiny_requests import BEGIN, DEFINITION, SECOND, define, story, tiny_requests

END = BEGIN + 300 * SECOND


@pytest.fixture
def ingest(database: Database, catalog: Catalog, clock: Any) -> Ingest:
    clock.now = END // 1000
    return Ingest(database, catalog, clock, drift_period_seconds=10, future_seconds=600)


@pytest.fixture
def parcels(repository: Any, watch: RepositoryWatch) -> LoadedRelease:
    repository.publish("1.0.0", build=tiny_requests)
    watch.look()
    return LoadedRelease.open(repository.bundles / "tiny_requests" / "1.0.0", TARGET)


@pytest.fixture
def motion(repository: Any, watch: RepositoryWatch) -> LoadedRelease:
    repository.publish("1.0.0")
    watch.look()
    return LoadedRelease.open(repository.bundles / "tiny_bundle" / "1.0.0", TARGET)


def engine_of(release: LoadedRelease, memory: Any) -> tuple[Engine, Monitor]:
    """A real engine, with this memory in place of the release's own."""
    monitor = Monitor(device="d1", sample_every=1, now_ms=0)
    engine = Engine(monitor, slices={}, max_queue_rows=4096, now_us=lambda: END)
    release.begin = lambda **_: memory  # type: ignore[method-assign]
    engine.set_active(release, "incumbent", None)
    return engine, monitor


def samples_of_requests(
    release: LoadedRelease,
    evaluator: Callable[[RequestDefinition], RequestEvaluator] = RequestEvaluator,
) -> list[Sample]:
    """All samples of a log that is told event by event."""
    told = story(120, 40)

    async def live() -> list[Sample]:
        engine, monitor = engine_of(release, RequestMemory(evaluator(DEFINITION)))
        arrived = np.asarray(told.events.arrived_us)
        steps = [(int(when), 0, place) for place, when in enumerate(arrived)]
        steps += [(int(when), 1, place) for place, when in enumerate(told.request["at"])]
        for when, kind, place in sorted(steps):
            if kind:
                request = {name: [list(column)[place]] for name, column in told.request.items()}
                await engine.ask({**request, "at": [when]})
            else:
                one = told.events.only(np.array([place]))
                await engine.observe("parcels", *one[:2], one.fields, one.arrived_us)
        now = int(told.request["at"].max()) + 70 * SECOND
        # An event of a moment more than a minute ago, of a minute ago, and of this very moment.
        moments = np.array([now - 60 * SECOND - 1, now - 60 * SECOND, now])
        fields = {"place": ["p1"] * 3, "kind": ["x", "y", "z"], "weight": [1.0, 2.0, 3.0]}
        came = np.array([now - 60 * SECOND - 1, now - 60 * SECOND, now])
        await engine.observe("parcels", moments, [1, 2, 3], fields, came)
        await engine.ask({"place": ["p1"], "size": [1.0], "at": [now]})
        await engine.close()
        return monitor.take_samples()

    return asyncio.run(live())


def inbound(samples: list[Sample]) -> list[Inbound]:
    return [
        Inbound(topic=topics.up(sample.device, "samples"), payload=codec.encode(sample))
        for sample in samples
    ]


def parity_of(database: Database, catalog: Catalog, clock: Any) -> ParityView:
    (view,) = Overview(database, catalog, clock, Costs(database, clock)).releases()
    return view.parity


def rejected(database: Database) -> dict[str, str]:
    with database.read() as connection:
        return {row.reason: row.detail for row in journal.rejections(connection, 100)}


def alerts(database: Database) -> list[journal.Alert]:
    with database.read() as connection:
        return journal.open_alerts(connection, "parity")


def test_an_honest_device_of_requests_is_never_blamed(
    ingest: Ingest, parcels: LoadedRelease, database: Database, catalog: Catalog, clock: Any
) -> None:
    samples = samples_of_requests(parcels)
    ingest.take(inbound(samples))
    assert len(samples) == 41
    assert parity_of(database, catalog, clock) == ParityView(compared=41)
    assert rejected(database) == {}
    assert alerts(database) == []


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (
            faulty.with_store(faulty.SeesThisMoment),
            {"count", "weight_sum", "weight_mean", "since", "kinds"},
        ),
        (
            faulty.with_store(faulty.LongerWindow),
            {"count", "weight_sum", "weight_mean", "since", "kinds"},
        ),
        (faulty.with_store(faulty.FloatSums), {"weight_sum"}),
        (faulty.with_rows(name="weight_mean", default=0.0), {"weight_mean"}),
        (faulty.with_rows(name="heft", default=0.0), {"heft"}),
        (faulty.with_rows(name="hour", zone=None), {"hour"}),
    ],
    ids=["this moment", "longer window", "float sums", "fill", "fill of a field", "local time"],
)
def test_a_faulty_device_of_requests_is_caught_by_the_feature_s_name(
    ingest: Ingest,
    parcels: LoadedRelease,
    database: Database,
    catalog: Catalog,
    clock: Any,
    fault: Callable[[RequestDefinition], RequestEvaluator],
    expected: set[str],
) -> None:
    ingest.take(inbound(samples_of_requests(parcels, fault)))
    parity = parity_of(database, catalog, clock)
    assert parity.compared == 41
    assert 0 < parity.mismatches <= 41
    assert set(parity.features) <= expected
    assert parity.features
    assert max(parity.features.values()) <= parity.mismatches
    (alert,) = alerts(database)
    assert alert.detail["features"]
    assert set(alert.detail["features"]) <= expected
    assert alert.detail["features"][0] in alert.title
    assert rejected(database) == {}
    # What an operator sees.
    told = views.parity(msgspec.to_builtins(parity)).plain
    assert told.startswith(f"{parity.mismatches} of 41 differ")
    assert all(name in told for name in parity.features)


def samples_of_windows(release: LoadedRelease, evaluator: Evaluator) -> list[Sample]:
    async def live() -> list[Sample]:
        release._windows = evaluator
        engine, monitor = engine_of(release, WindowMemory(evaluator))
        rows, _ = tiny_rows(12)
        for row in rows[:6]:
            await engine.predict(row[None])
        for number, row in enumerate(rows[6:]):
            times = (number * 8 + np.arange(1, 9)) * 20_000
            await engine.push("wrist", times, row)
        await engine.close()
        return monitor.take_samples()

    return asyncio.run(live())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Evaluator, set()),
        (faulty.FloatMeans, {"ax_mean"}),
        (faulty.ShiftedWindow, {"ay_mean", "ay_std"}),
    ],
)
def test_devices_of_windows_are_judged_likewise(
    ingest: Ingest,
    motion: LoadedRelease,
    database: Database,
    catalog: Catalog,
    clock: Any,
    kind: type[Evaluator],
    expected: set[str],
) -> None:
    samples = samples_of_windows(motion, kind(motion.evaluator.definition))
    ingest.take(inbound(samples))
    parity = parity_of(database, catalog, clock)
    assert parity.compared == len(samples) > 6
    assert (parity.mismatches > 0, set(parity.features)) == (bool(expected), expected)
    assert len(alerts(database)) == bool(expected)


def changed(samples: list[Sample], **changes: Any) -> list[Inbound]:
    return inbound([msgspec.structs.replace(samples[-1], **changes)])


BOMB = zlib.compress(bytes(50 * MAX_EVIDENCE_BYTES), 9)


@pytest.mark.parametrize(
    ("changes", "reason", "said"),
    [
        ({"definition": "0" * 64}, "another feature definition", "computed by 000"),
        ({"window": b"1234"}, "wrong length", "window has 4 bytes, not 0"),
        ({"features": b""}, "wrong length", "features has 0 bytes, not 28"),
        ({"request": b""}, "wrong evidence", "the request is missing"),
        ({"memory": BOMB}, "wrong evidence", "grow beyond 1048576 bytes"),
        ({"memory": b"noise"}, "wrong evidence", "packed bytes are damaged"),
        ({"memory": b""}, "wrong evidence", "cut short"),
    ],
)
def test_untrue_samples_are_rejected_and_not_compared(
    ingest: Ingest,
    parcels: LoadedRelease,
    database: Database,
    changes: dict[str, Any],
    reason: str,
    said: str,
) -> None:
    ingest.take(changed(samples_of_requests(parcels), **changes))
    found = rejected(database)
    assert set(found) == {reason}
    assert said in found[reason]
    with database.read() as connection:
        assert parity_counts.every(connection) == []


def requests(at: list[Any], **others: Any) -> bytes:
    plain = {"at": at, "place": ["p1"] * len(at), "size": [1.0] * len(at)}
    return logs.pack(Log({}, plain | others))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"request": b"noise"}, "the log of events and requests is damaged"),
        ({"memory": packed.pack(b"noise")}, "the state is damaged"),
        ({"request": requests([BEGIN] * 9)}, "it holds 9 requests; a sample has one"),
        ({"request": requests([])}, "it holds 0 requests; a sample has one"),
        ({"request": requests([[BEGIN]])}, "at has shape"),
        ({"request": requests([[[1], [1, 2]]])}, "at is no flat column"),
        ({"request": requests([END], **{"x" * 64: []})}, "unknown fields: xxx"),
    ],
)
def test_evidence_that_cannot_be_computed_again_is_a_difference(
    ingest: Ingest,
    parcels: LoadedRelease,
    database: Database,
    changes: dict[str, Any],
    said: str,
) -> None:
    ingest.take(changed(samples_of_requests(parcels), **changes))
    (alert,) = alerts(database)
    assert said in alert.title
    assert alert.detail["features"] == []


def test_many_requests_are_refused_before_they_are_computed(
    ingest: Ingest,
    parcels: LoadedRelease,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample = changed(samples_of_requests(parcels), request=requests([END] * 9))
    unknown = {f"{number:064}": [] for number in range(500)}
    odd = changed(samples_of_requests(parcels), request=requests([END], **unknown))
    asked: list[int] = []
    ask = RequestEvaluator.ask

    def counted(evaluator: RequestEvaluator, request: Any) -> Any:
        asked.append(len(request["at"]))
        return ask(evaluator, request)

    monkeypatch.setattr(RequestEvaluator, "ask", counted)
    ingest.take(sample)
    assert asked == []
    ingest.take(odd)
    with database.read() as connection:
        (row,) = parity_counts.every(connection)
    assert len(row.detail) < 400


def test_a_window_s_sample_carries_no_request(
    ingest: Ingest, motion: LoadedRelease, database: Database
) -> None:
    samples = samples_of_windows(motion, motion.evaluator)
    ingest.take(changed(samples, request=b"x"))
    assert rejected(database) == {"wrong evidence": "a window comes with a request"}


def test_a_sample_of_the_version_before_is_compared_as_it_was(
    ingest: Ingest, motion: LoadedRelease, database: Database, catalog: Catalog, clock: Any
) -> None:
    sample = samples_of_windows(motion, motion.evaluator)[0]
    fields = msgspec.structs.asdict(sample)
    for name in ("v", "definition", "request", "memory"):
        del fields[name]
    payload = msgspec.msgpack.encode(Sample1(**fields))
    ingest.take([Inbound(topic=topics.up("d1", "samples"), payload=payload)])
    assert parity_of(database, catalog, clock) == ParityView(compared=1)


def half(x: Any) -> Any:
    return x / 2


def test_a_release_whose_function_is_gone_is_shown_and_a_new_one_refused(
    repository: Any,
    watch: RepositoryWatch,
    database: Database,
    clock: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registered, "_FUNCTIONS", {("half", 1): half})
    halved = Registered(
        name="heft",
        function="half",
        version=1,
        sha256=registered.digest(half),
        inputs=["size"],
        default=1,
    )
    definition = define(features=(*DEFINITION.features[:-1], halved))

    def build(folder: Path, **changes: Any) -> Path:
        return tiny_requests(folder, definition=definition, **changes)

    repository.publish("1.0.0", build=build)
    watch.look()
    repository.publish("1.1.0", build=build)
    monkeypatch.setattr(registered, "_FUNCTIONS", {})
    watch.look()
    costs = Costs(database, clock)
    shown = Overview(database, Catalog(database, clock), clock, costs).releases()
    assert [view.version for view in shown] == ["1.0.0"]
    with database.read() as connection:
        titles = [alert.title for alert in journal.open_alerts(connection, "repository")]
    assert len(titles) == 1
    assert "tiny-parcels@1.1.0 is approved but cannot be used: feature heft needs" in titles[0]


def test_a_request_that_saw_too_much_for_a_message_is_counted_and_not_sent(
    parcels: LoadedRelease,
) -> None:
    async def live() -> tuple[int, int]:
        engine, monitor = engine_of(parcels, RequestMemory(RequestEvaluator(DEFINITION)))
        rng = np.random.default_rng(1)
        count = 4096
        fields = {
            "place": ["p1"] * count,
            "kind": [f"{n:x}" * 4 for n in rng.integers(0, 2**62, count).tolist()],
            "weight": rng.uniform(0, 50, count),
        }
        numbers = rng.integers(0, 2**62, count)
        moments = END - rng.integers(1, 60 * SECOND, count)
        await engine.observe("parcels", moments, numbers, fields)
        answers = await engine.ask({"place": ["p1"], "size": [1.0]})
        await engine.ask({"place": ["p1"], "size": [1.0]})
        await engine.close()
        assert answers[0].served_by == "model"
        return len(monitor.take_samples()), monitor.unsendable_samples

    assert asyncio.run(live()) == (0, 2)
