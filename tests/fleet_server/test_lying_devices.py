"""Devices that lie, alone and by the score: what they say adds up to no more than they may weigh.

What one message can be refused for is in ``test_ingest`` and ``test_windows``, what one device's
evidence can do to a verdict in ``domain/test_verdict_attacks``. Here many lies come at once.
"""

import hashlib
import random
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa

from edge_core.messages import codec, topics
from edge_core.messages import windows as messages
from edge_core.messages.telemetry import Refusal, ReportedState, StatsWindow
from edge_core.messages.window_schema import WindowSchema
from edge_core.release import ReleaseRef
from fleet_server.domain.drifting.expectation import Settings
from fleet_server.services import ingest
from fleet_server.services.ingest import Inbound
from fleet_server.storage import refusals, rollouts, tables
from tests.fleet_server.conftest import Clock, Repository
from tests.simulators import first_windows
from tests.simulators.spoken_fleet import SpokenFleet
from tests.simulators.tiny_bundle import TARGET

BACKENDS = ("sqlite", "postgresql")
HOUR_MS = 3_600_000
HUGE = 10**9
BATCH = 1000


@pytest.fixture
def ref(fleet: SpokenFleet, repository: Repository) -> ReleaseRef:
    return fleet.approve(repository.publish("1.0.0"))


def schema_of(fleet: SpokenFleet, ref: ReleaseRef) -> WindowSchema:
    with fleet.services.database.read() as connection:
        return fleet.services.catalog.require(connection, ref.digest).window_schema


def window(fleet: SpokenFleet, ref: ReleaseRef, device: str, **changes: Any) -> StatsWindow:
    plain = StatsWindow(
        device=device, epoch="e", sequence=1, opened_ms=fleet.clock() - 2000,
        closed_ms=fleet.clock(), release=ref, target=TARGET, arm="incumbent",
        slices={"side": "left"}, rows=10,
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def packed(said: StatsWindow, schema: WindowSchema, topic: str = "") -> Inbound:
    payload = codec.encode(messages.pack(said, schema))
    return Inbound(topic=topics.up(topic or said.device, "stats"), payload=payload)


def loose(said: StatsWindow) -> Inbound:
    """As version 1 had it: whatever one likes to say can be said."""
    return Inbound(topic=topics.up(said.device, "stats"), payload=first_windows.encode(said))


def report(fleet: SpokenFleet, device: str, **changes: Any) -> Inbound:
    state = ReportedState(device=device, at_ms=fleet.clock(), target=TARGET, runtime="none")
    payload = codec.encode(msgspec.structs.replace(state, **changes))
    return Inbound(topic=topics.up(device, "state"), payload=payload)


def take(fleet: SpokenFleet, said: Iterable[Inbound]) -> None:
    """As the gateway does it: in batches."""
    found = list(said)
    for start in range(0, len(found), BATCH):
        fleet.services.ingest.take(found[start : start + BATCH])


def rows(fleet: SpokenFleet) -> dict[str, int]:
    """Rows of every table that has any."""
    with fleet.services.database.read() as connection:
        found = {
            table.name: int(
                connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            )
            for table in tables.metadata.sorted_tables
        }
    return {name: count for name, count in found.items() if count}


def rejected(fleet: SpokenFleet) -> dict[tuple[str, str, str], int]:
    """As the API shows it: (device, kind, reason) -> how often."""
    return {(r.device, r.kind, r.reason): r.count for r in fleet.services.overview.rejected(200)}


def made_up(number: int) -> ReleaseRef:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return ReleaseRef(model="made-up", version=f"1.0.{number}", digest=digest)


def test_a_device_that_keeps_changing_is_told_so_often_an_hour(
    fleet: SpokenFleet, ref: ReleaseRef, clock: Clock
) -> None:
    def flips(count: int) -> Iterable[Inbound]:
        for number in range(count):
            yield report(fleet, "liar", active=made_up(number), update="committed")

    most = ingest.MOST_CHANGES
    take(fleet, flips(2000))
    take(fleet, [report(fleet, "honest", active=ref, update="committed")])
    found = rows(fleet)
    assert (found["devices"], found["rejected"]) == (2, 1)
    assert found["runs"] <= most + 1
    assert found["events"] <= most + 4  # beside a release, two devices and what one runs
    assert rejected(fleet) == {("liar", "state", "too many changes"): 2000 - most}
    assert fleet.device("honest").active == ref.digest
    clock.now += HOUR_MS
    take(fleet, [report(fleet, "liar", active=ref, update="committed")])
    assert fleet.device("liar").active == ref.digest


def test_a_clock_that_jumps_back_and_forth_opens_few_alerts(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    schema = schema_of(fleet, ref)
    times = [{}, {"opened_ms": 0, "closed_ms": 1000}]
    jumping = (window(fleet, ref, "liar", sequence=n, **times[n % 2]) for n in range(1000))
    take(fleet, [packed(said, schema) for said in jumping])
    assert rows(fleet)["alerts"] == ingest.MOST_CHANGES - 1  # and one for the outbox
    assert counted_in(fleet, tables.totals, "device") == {"liar": 10_000}


def test_made_up_refusals_are_few_and_one_alert(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    def flood() -> Iterable[Inbound]:
        for number in range(300):
            several = [
                Refusal(release=made_up(300 * number + n), reason="no", at_ms=number)
                for n in range(100)
            ]
            yield report(fleet, "liar", refusals=several)

    true = Refusal(release=ref, reason="its self-test fails", at_ms=0)
    take(fleet, [report(fleet, "honest", refusals=[true])])
    take(fleet, flood())
    found = rows(fleet)
    assert found["refusals"] == ingest.KEPT_REFUSALS + 1
    assert found["events"] <= ingest.MOST_CHANGES * ingest.MOST_REFUSALS + 4
    assert rejected(fleet) == {("liar", "state", "too many changes"): 300 - ingest.MOST_CHANGES}
    with fleet.services.database.read() as connection:
        assert refusals.count(connection, ref.digest) == 1
    assert sorted(title.split(":")[0] for title in fleet.alerts("refusal"))[1:] == [
        "1 device(s) refuse tiny-motion@1.0.0"
    ]
    assert len(fleet.alerts("refusal")) == 2


def test_new_outboxes_are_few_and_old_ones_count_nothing_again(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    schema, most = schema_of(fleet, ref), ingest.MOST_CHANGES
    flood = [packed(window(fleet, ref, "liar", epoch=f"e{n:04}"), schema) for n in range(1500)]
    take(fleet, flood)
    random.Random(1).shuffle(flood)
    take(fleet, flood)
    assert rows(fleet)["epochs"] == most
    assert counted_in(fleet, tables.totals, "device") == {"liar": 10 * most}
    ((who, reason),) = [(key[0], key[2]) for key in rejected(fleet)]
    assert (who, reason) == ("liar", "too many outboxes")
    again = [window(fleet, ref, "liar", epoch="e0000", sequence=n) for n in range(1, 4)]
    take(fleet, [packed(said, schema) for said in again])
    assert counted_in(fleet, tables.totals, "device") == {"liar": 10 * most + 20}


def test_a_device_cannot_choose_to_be_a_candidate(
    fleet: SpokenFleet, ref: ReleaseRef, repository: Repository
) -> None:
    fleet.produce(ref, [])
    for number in range(60):
        side = ("left", "right", f"mine {number}")[number % 3]
        fleet.report(f"d{number:02}", active=ref, update="committed", slices={"side": side})
    new = fleet.approve(repository.publish("1.1.0", seed=1))
    plan = {"stages": [{"kind": "canary", "share": 0.1, "min_seconds": 0}]}
    ahead = fleet.services.rollouts.check(new.name, plan)
    assert ahead.stages[0].devices["candidate"] == 6
    rollout = fleet.services.rollouts.start(new.name, plan, "ann").rollout
    with fleet.services.database.read() as connection:
        drawn = list(rollouts.roles(connection, rollout, 0).values())
    assert drawn.count("candidate") == 6


def labels(schema: WindowSchema, count: int) -> bytes:
    return np.array([0, count, *[0] * (schema.confidence_size - 2)], "<i8").tobytes()


def outcome(said: StatsWindow, schema: WindowSchema, right: int, wrong: int) -> StatsWindow:
    return msgspec.structs.replace(
        said, rows=right + wrong, right=labels(schema, right), wrong=labels(schema, wrong)
    )


def shares(schema: WindowSchema, rows: int, shift: float) -> bytes:
    """Counts of every channel, evenly spread but for a share that moved into one bin."""
    parts = []
    for size, each in zip(schema.sizes, schema.values, strict=True):
        spread = np.full(size, rows * each * (1 - shift) / size)
        spread[-2] += rows * each * shift
        parts.append(spread.astype("<i8"))
    return np.concatenate(parts).tobytes()


def test_one_device_is_no_drift_of_the_world(
    fleet: SpokenFleet, ref: ReleaseRef, clock: Clock
) -> None:
    schema = schema_of(fleet, ref)
    names = [f"d{number}" for number in range(60)]

    def period(number: int, shift: float, liar: int, lie: float) -> None:
        usual = [
            window(fleet, ref, name, sequence=number, rows=200, counts=shares(schema, 200, shift))
            for name in names
        ]
        counts = shares(schema, liar, lie)
        loud = window(fleet, ref, "liar", sequence=number, rows=liar, counts=counts)
        take(fleet, [packed(said, schema) for said in (*usual, loud)])
        clock.now += 10_000
        fleet.services.drift.observe()

    for number in range(2 * Settings().learning_periods):
        period(number, 0.0, 200, 0.0)
    for number in range(100, 120):
        period(number, 0.0, HUGE, 0.9)
    assert fleet.alerts("drift") == []
    for number in range(200, 220):
        period(number, 0.5, HUGE, 0.0)
    assert len(fleet.alerts("drift")) == 1  # and none can hide one


def counted_in(fleet: SpokenFleet, table: sa.Table, by: str) -> dict[str, int]:
    """Rows that a table has counted."""
    query = sa.select(table.c[by], sa.func.sum(table.c.rows)).group_by(table.c[by])
    with fleet.services.database.read() as connection:
        return {name: int(count) for name, count in connection.execute(query)}


@pytest.mark.parametrize(
    ("honest", "lie", "not_to_be"),
    [((450, 150), (0, HUGE), "rolling_back"), ((330, 270), (HUGE, 0), "promoting")],
    ids=["rolls nothing back", "promotes nothing"],
)
def test_one_lying_candidate(
    fleet: SpokenFleet,
    ref: ReleaseRef,
    repository: Repository,
    honest: tuple[int, int],
    lie: tuple[int, int],
    not_to_be: str,
) -> None:
    fleet.produce(ref, [f"d{number:02}" for number in range(24)])
    new = fleet.approve(repository.publish("1.1.0", seed=1))
    plan = {"stages": [{"kind": "canary", "share": 0.5, "min_seconds": 0}], "strata": []}
    rollout = fleet.services.rollouts.start(new.name, plan, "ann").rollout
    fleet.obey()
    liar = next(name for name, wish in fleet.wishes().items() if wish.arm == "candidate")
    schema = schema_of(fleet, new)
    said = window(fleet, new, liar, arm="candidate", rollout=rollout, slices={}, epoch="lie")
    for number in range(1, 4):
        lying = outcome(msgspec.structs.replace(said, sequence=number), schema, *lie)
        take(fleet, [packed(lying, schema)])
        fleet.decide(1)
        assert fleet.services.rollouts.one(rollout).state == "running"
    fleet.speak(rollout, candidate=honest, incumbent=(450, 150))
    fleet.decide(1)
    shown = fleet.services.rollouts.one(rollout)
    assert shown.state != not_to_be, shown.latest
