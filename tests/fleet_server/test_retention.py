"""What is kept, for how long, and how much of it: a database has to last for years."""

import itertools
from typing import Any

import msgspec
import sqlalchemy as sa

from edge_core.messages.telemetry import StatsWindow
from edge_core.release import ReleaseRef
from fleet_server.services import verdicts
from fleet_server.storage import tables, windows
from tests.simulators.spoken_fleet import SpokenFleet
from tests.simulators.tiny_bundle import TARGET

BACKENDS = ("sqlite", "postgresql")

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def sequences(fleet: SpokenFleet) -> list[int]:
    """Of the windows that are still stored as they came."""
    query = sa.select(tables.windows.c.sequence).order_by(tables.windows.c.sequence)
    with fleet.services.database.read() as connection:
        return list(connection.execute(query).scalars())


def test_old_windows_and_events_go_and_sums_stay(fleet: SpokenFleet, repository: Any) -> None:
    ref: ReleaseRef = fleet.approve(repository.publish("1.0.0"))
    window = StatsWindow(
        device="d1",
        epoch="e",
        sequence=0,
        opened_ms=fleet.clock(),
        closed_ms=fleet.clock(),
        release=ref,
        target=TARGET,
        arm="incumbent",
        rows=7,
    )

    def send(sequence: int) -> None:
        fleet.window(msgspec.structs.replace(window, sequence=sequence))

    def first_event() -> str:
        return fleet.services.overview.events(0, 10)[0].text

    send(0)
    fleet.services.retention.prune()
    fleet.clock.now += 40 * HOUR_MS
    send(1)
    fleet.services.retention.prune()
    assert sequences(fleet) == [0, 1]
    assert first_event() == "approved by the repository"
    fleet.clock.now += 10 * HOUR_MS
    fleet.services.retention.prune()
    assert sequences(fleet) == [1]
    send(0)
    with fleet.services.database.read() as connection:
        assert windows.totals_of(connection, "d1", ref.digest, "incumbent").rows == 14
    fleet.clock.now += 181 * DAY_MS
    fleet.report("d2")
    fleet.services.retention.prune()
    assert sequences(fleet) == []
    assert first_event() == "first seen"


def test_a_rollout_that_waits_for_weeks_stores_a_few_verdicts(
    fleet: SpokenFleet, repository: Any
) -> None:
    old = fleet.approve(repository.publish("1.0.0"))
    new = fleet.approve(repository.publish("1.1.0", seed=1))
    fleet.produce(old, ["d0", "d1"])
    rollout = fleet.services.rollouts.start(new.name, {"deadline_seconds": 1e9}, "me").rollout
    started = fleet.clock()
    for _ in range(300):  # rarely at first, then every day
        fleet.obey()
        fleet.decide(min(DAY_MS, 2000 + (fleet.clock() - started) // 100) / 1000)
    stored = fleet.services.verdicts.of_rollout(rollout, 1000)[::-1]
    assert {verdict.decision for verdict in stored} == {"hold"}
    assert 5 < len(stored) < 120
    gaps = [b.at_ms - a.at_ms for a, b in itertools.pairwise(stored)]
    assert min(gaps) >= verdicts.EVERY_MS
    assert [v.verdict for v in fleet.services.verdicts.of_rollout(rollout, 2)] == [
        v.verdict for v in stored[:-3:-1]
    ]
    assert fleet.services.verdicts.replay(stored[-1].verdict).same
