"""Packed windows into a real database: once each, whatever the clock, cost and noise kept."""

import gzip
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_core.bundle.manifest import Privacy
from edge_core.messages import codec, topics
from edge_core.messages import windows as messages
from edge_core.messages.telemetry import (
    OTHER_CONSUMERS,
    Cost,
    FallbackCounts,
    PairedCounts,
    Refusal,
    ReportedState,
    StatsWindow,
)
from edge_core.messages.window_schema import WindowSchema
from edge_core.release import ReleaseRef
from edge_core.stats import noise
from fleet_server.services.catalog import Release
from fleet_server.services.ingest import Inbound
from fleet_server.storage import costs, drift, journal, tables, windows
from fleet_server.storage.database import Database
from tests.simulators.spoken_fleet import SpokenFleet
from tests.simulators.tiny_bundle import TARGET, tiny_bundle

BACKENDS = ("sqlite", "postgresql")

EPSILON = 4.0
FLOOD = 300


def noisy_bundle(folder: Path, **options: Any) -> Path:
    return tiny_bundle(folder, privacy=Privacy(epsilon=EPSILON), **options)


@pytest.fixture
def ref(fleet: SpokenFleet, repository: Any) -> ReleaseRef:
    return fleet.approve(repository.publish("1.0.0"))


@pytest.fixture
def noisy(fleet: SpokenFleet, repository: Any) -> ReleaseRef:
    return fleet.approve(repository.publish("1.0.0", build=noisy_bundle))


def release_of(fleet: SpokenFleet, ref: ReleaseRef) -> Release:
    with fleet.services.database.read() as connection:
        return fleet.services.catalog.require(connection, ref.digest)


def window(ref: ReleaseRef, fleet: SpokenFleet, **changes: Any) -> StatsWindow:
    plain = StatsWindow(
        device="d1",
        epoch="ab",
        sequence=1,
        opened_ms=fleet.clock() - 2000,
        closed_ms=fleet.clock(),
        release=ref,
        target=TARGET,
        arm="incumbent",
        slices={"side": "left"},
        rows=10,
    )
    return msgspec.structs.replace(plain, **changes)


def rejections(fleet: SpokenFleet) -> dict[str, str]:
    with fleet.services.database.read() as connection:
        return {r.reason: r.detail for r in journal.rejections(connection, 100)}


def totals(fleet: SpokenFleet, ref: ReleaseRef, device: str = "d1") -> windows.Totals:
    with fleet.services.database.read() as connection:
        return windows.totals_of(connection, device, ref.digest, "incumbent")


def stored(fleet: SpokenFleet) -> list[tuple[int, int]]:
    with fleet.services.database.read() as connection:
        query = tables.windows.select().order_by(tables.windows.c.sequence)
        rows = connection.execute(query).mappings()
        return [(row["opened_ms"], row["closed_ms"]) for row in rows]


@pytest.mark.parametrize(
    "changes",
    [
        {"fallbacks": FallbackCounts(command=10)},
        {"arm": "fallback", "fallbacks": FallbackCounts(command=9)},
        {"dropped": 1},
        {"arm": "shadow", "dropped": 2_000_000_000},
        {"cost": Cost(cached=11)},
        {"cost": Cost(consumers={"one": 6, "two": 5})},
        {"arm": "shadow", "cost": Cost(cached=1)},
        {"arm": "shadow", "cost": Cost(consumers={"one": 1})},
    ],
)
def test_causes_dropped_rows_and_cost_have_to_be_possible(
    fleet: SpokenFleet, ref: ReleaseRef, changes: dict[str, Any]
) -> None:
    schema = release_of(fleet, ref).window_schema
    payload = codec.encode(messages.pack(window(ref, fleet, **changes), schema))
    fleet.services.ingest.take(
        [Inbound(topic=topics.up("d1", "stats"), payload=payload, retained=False)]
    )
    assert set(rejections(fleet)) == {"impossible counts"}
    assert totals(fleet, ref).rows == 0


def test_a_busy_devices_hour_is_taken(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    rows = 50_000 * 3600
    fleet.window(window(ref, fleet, rows=rows))
    fleet.window(window(ref, fleet, sequence=2, arm="shadow", rows=0, dropped=rows))
    assert rejections(fleet) == {}
    assert totals(fleet, ref).rows == rows


NAMES = count()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sent=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 8)), min_size=1, max_size=40),
    cuts=st.sets(st.integers(0, 40), max_size=6),
)
def test_each_window_counts_once_in_any_order_and_across_new_outboxes(
    fleet: SpokenFleet, ref: ReleaseRef, sent: list[tuple[int, int]], cuts: set[int]
) -> None:
    """Sequence numbers of up to three outboxes of one device, repeated and mixed at will."""
    device = f"device-{next(NAMES)}"
    schema = release_of(fleet, ref).window_schema
    payloads = {
        (epoch, sequence): codec.encode(
            messages.pack(
                window(
                    ref,
                    fleet,
                    device=device,
                    epoch=f"{epoch:016x}",
                    sequence=sequence,
                    rows=100**epoch + sequence,
                ),
                schema,
            )
        )
        for epoch, sequence in set(sent)
    }
    inbound = [Inbound(topic=topics.up(device, "stats"), payload=payloads[place]) for place in sent]
    edges = [0, *sorted(cuts), len(inbound)]
    for start, stop in pairwise(edges):
        fleet.services.ingest.take(inbound[start:stop])
    assert totals(fleet, ref, device).rows == sum(100**epoch + s for epoch, s in set(sent))
    missing = 0
    for epoch in range(3):
        numbers = {s for e, s in sent if e == epoch}
        missing += max(numbers) - min(numbers) + 1 - len(numbers) if numbers else 0
    with fleet.services.database.read() as connection:
        assert windows.lost_windows(connection)[device] == missing


def test_a_window_on_another_devices_topic_is_refused(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    schema = release_of(fleet, ref).window_schema
    payload = codec.encode(messages.pack(window(ref, fleet), schema))
    fleet.services.ingest.take([Inbound(topic=topics.up("d2", "stats"), payload=payload)])
    assert list(rejections(fleet)) == ["speaks for another device"]
    assert totals(fleet, ref, "d2").rows == 0


def test_a_window_of_an_unknown_release_is_refused_and_not_lost(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    fleet.window(window(ref, fleet))
    unknown = ReleaseRef(model="other", version="1.0.0", digest="6" * 64)
    schema = msgspec.structs.replace(release_of(fleet, ref).window_schema, release=unknown)
    foreign = messages.pack(window(unknown, fleet, sequence=2), schema)
    topic = topics.up("d1", "stats")
    fleet.services.ingest.take([Inbound(topic=topic, payload=codec.encode(foreign))])
    assert rejections(fleet) == {"unknown release": "6" * 12}
    with fleet.services.database.read() as connection:
        assert windows.lost_windows(connection) == {"d1": 0}


def test_a_body_that_cannot_be_read_costs_no_other_window(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    schema = release_of(fleet, ref).window_schema
    packed = messages.pack(window(ref, fleet), schema)
    body = messages.body(window(ref, fleet), schema)
    broken = messages.stamped(body[:-1], "ab", 2)
    other = messages.pack(window(ref, fleet, sequence=3), schema)
    topic = topics.up("d1", "stats")
    batch = [Inbound(topic=topic, payload=codec.encode(m)) for m in (packed, broken, other)]
    fleet.services.ingest.take(batch)
    assert rejections(fleet) == {"unreadable message": "packed counts are cut short"}
    assert totals(fleet, ref).rows == 20


@pytest.mark.parametrize(
    "times",
    [
        (0, 60_000),
        (2_147_483_647_000, 2_147_483_707_000),
        (5_000, 1_700_000_000_000),
        (1_700_000_000_000, 5_000),
        (-(2**53), 2**53),
    ],
    ids=["1970", "2038", "set meanwhile", "lost meanwhile", "absurd"],
)
def test_a_wrong_clock_costs_no_counts_and_reaches_nothing(
    fleet: SpokenFleet, ref: ReleaseRef, times: tuple[int, int]
) -> None:
    opened, closed = times
    for sequence in (1, 2):
        fleet.window(window(ref, fleet, sequence=sequence, opened_ms=opened, closed_ms=closed))
    assert totals(fleet, ref).rows == 20
    assert stored(fleet) == [(fleet.clock(), fleet.clock())] * 2
    assert fleet.alerts("clock") == [
        "the clock of d1 is wrong: set it; its statistics are taken as of now"
    ]
    right = window(ref, fleet, sequence=3)
    fleet.window(right)
    assert stored(fleet)[2] == (right.opened_ms, right.closed_ms)
    assert fleet.alerts("clock") == []
    assert rejections(fleet) == {}


def test_a_time_beyond_all_columns_is_refused_not_fatal(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    refusal = Refusal(release=ref, reason="no", at_ms=2**64 - 1)
    state = ReportedState(device="d1", at_ms=0, target=TARGET, runtime="", refusals=[refusal])
    message = Inbound(topic=topics.up("d1", "state"), payload=msgspec.msgpack.encode(state))
    fleet.services.ingest.take([message])
    assert list(rejections(fleet)) == ["unreadable message"]


def test_production_shows_what_it_costs(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    fleet.produce(ref, ["d1"])
    (before,) = fleet.services.overview.production()
    assert before.cost is None
    fleet.window(window(ref, fleet, cost=Cost(cpu_us=70)))
    (after,) = fleet.services.overview.production()
    assert after.cost is not None
    assert after.cost.cpu_us_per_prediction == 7


def test_consumers_become_visible_and_cannot_fill_the_database(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    for sequence, name in enumerate(("till", "till", "robot")):
        fleet.window(window(ref, fleet, sequence=sequence, cost=Cost(consumers={name: 5})))
    found = [(c.model, c.consumer, c.rows) for c in fleet.services.consumers.every()]
    assert found == [("tiny-motion", "till", 10), ("tiny-motion", "robot", 5)]
    with fleet.services.database.write() as connection:
        for number in range(FLOOD):
            costs.add_consumer(connection, "tiny-motion", f"n{number}", 1, 0)
        kept = {c.consumer: c.rows for c in costs.every_consumer(connection)}
    assert len(kept) == costs.MOST_CONSUMERS + 1
    assert kept[OTHER_CONSUMERS] == FLOOD - (costs.MOST_CONSUMERS - 2)


def counts_of(schema: WindowSchema, rows: int) -> np.ndarray:
    """Everything in the second count of each channel."""
    parts = []
    for size, values in zip(schema.sizes, schema.values, strict=True):
        part = np.zeros(size, np.int64)
        part[1] = rows * values
        parts.append(part)
    return np.concatenate(parts)


def test_noisy_windows_merge_to_the_truth(fleet: SpokenFleet, noisy: ReleaseRef) -> None:
    schema = release_of(fleet, noisy).window_schema
    assert schema.epsilon == EPSILON
    rng = np.random.default_rng(8)
    number, rows = 150, 200
    truth = counts_of(schema, rows)
    for sequence in range(number):
        drawn = noise.noisy(truth, schema.sizes, schema.channel_ratios, rng)
        labels = noise.noisy(
            np.array([0, 20, *[0] * (schema.confidence_size - 2)]),
            [schema.confidence_size],
            [schema.outcome_ratio],
            rng,
        )
        fleet.window(
            window(
                noisy,
                fleet,
                sequence=sequence,
                rows=rows,
                counts=drawn.astype("<i8").tobytes(),
                right=labels.astype("<i8").tobytes(),
            )
        )
    assert rejections(fleet) == {}
    with fleet.services.database.read() as connection:
        ((key, period),) = drift.periods_between(connection, 0, 2**60)
        assert drift.noise_of(connection, noisy.digest) == {key.period: number}
    deviations = np.repeat(
        [np.sqrt(number * noise.variance(ratio)) for ratio in schema.channel_ratios], schema.sizes
    )
    scores = (period.counts - number * truth) / deviations
    assert (period.counts < 0).any()
    assert np.abs(scores).max() < 5
    assert scores.std() == pytest.approx(1, abs=0.25)
    spread = np.sqrt(number * schema.confidence_size * noise.variance(schema.outcome_ratio))
    assert abs(totals(fleet, noisy).right - 20 * number) < 5 * spread
    (view,) = fleet.services.overview.releases()
    assert view.noisy


def test_noise_is_no_leave_to_lie(fleet: SpokenFleet, noisy: ReleaseRef) -> None:
    schema = release_of(fleet, noisy).window_schema
    lie = counts_of(schema, 10)
    lie[-3] += 100_000
    fleet.window(window(noisy, fleet, counts=lie.astype("<i8").tobytes()))
    labels = np.array([2_000_000_000, *[0] * (schema.confidence_size - 1)]).astype("<i8").tobytes()
    fleet.window(window(noisy, fleet, sequence=2, right=labels))
    assert list(rejections(fleet)) == ["impossible counts"]
    assert totals(fleet, noisy).rows == 0


@pytest.mark.parametrize("where", ["counts", "right", "paired", "latency"])
def test_exact_counts_are_never_negative(fleet: SpokenFleet, ref: ReleaseRef, where: str) -> None:
    schema = release_of(fleet, ref).window_schema
    sizes = {"counts": sum(schema.sizes), "right": schema.confidence_size, "latency": 24}
    change: dict[str, Any] = {"arm": "shadow", "paired": PairedCounts(agree=1, both_wrong=-1)}
    if where != "paired":
        change = {where: np.array([-1, 1, *[0] * (sizes[where] - 2)]).astype("<i8").tobytes()}
    fleet.window(window(ref, fleet, **change))
    assert list(rejections(fleet)) == ["impossible counts"]


def test_a_database_from_before_costs_were_kept_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "serinus.sqlite"
    sample = Path(__file__).parents[1] / "compat" / "databases" / "schema-1.sqlite.gz"
    path.write_bytes(gzip.decompress(sample.read_bytes()))
    first = sa.create_engine(f"sqlite:///{path}")
    with first.begin() as connection:  # as servers were before they kept these
        for table in (tables.costs, tables.consumers, tables.noises, tables.unreplayed):
            table.drop(connection)
    first.dispose()
    after = Database(path)
    with after.read() as connection:
        assert costs.since(connection, 0) == {}
        assert costs.every_consumer(connection) == []
        assert drift.noise_of(connection, "") == {}
    after.close()


def test_a_rollout_of_a_noisy_release_waits_for_a_person(
    fleet: SpokenFleet, repository: Any
) -> None:
    names = [f"d{number}" for number in range(4)]
    old = fleet.approve(repository.publish("1.0.0"))
    fleet.produce(old, names)
    new = fleet.approve(repository.publish("1.1.0", seed=1, build=noisy_bundle))
    plan = {"stages": [{"kind": "shadow", "share": 1.0, "min_seconds": 1}]}
    started = fleet.services.rollouts.start(new.name, plan, "somebody")
    fleet.obey()
    labels = np.zeros(release_of(fleet, new).window_schema.confidence_size, np.int64)
    labels[1] = 500
    right = labels.astype("<i8").tobytes()
    for sequence, name in enumerate(names):
        paired = PairedCounts(agree=500, both_right=100, only_shadow_right=400)
        for ref, arm, more in (
            (old, "incumbent", {}),
            (new, "shadow", {"paired": paired, "paired_with": old.digest[:12]}),
        ):
            changes = {"rows": 500, "right": right, "rollout": started.rollout, **more}
            place = {"device": name, "sequence": 2 * sequence + (arm == "shadow")}
            fleet.window(window(ref, fleet, arm=arm, **changes, **place))
    fleet.decide(60)
    found = fleet.services.rollouts.one(started.rollout)
    assert found.state == "running"
    assert found.latest is not None
    assert found.latest["decision"] == "hold"
    assert "labels carry noise for privacy" in found.latest["reason"]
    assert rejections(fleet) == {}
