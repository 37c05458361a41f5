"""A batch is stored as its messages would be one by one, by as many statements as a small one."""

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa

from edge_core.messages import codec, topics
from edge_core.messages import windows as messages
from edge_core.messages.telemetry import Cost, StatsWindow
from edge_core.release import ReleaseRef
from edge_core.stats import latency
from fleet_server.services.ingest import Inbound
from fleet_server.storage import tables
from tests.fleet_server.conftest import Repository
from tests.simulators.spoken_fleet import SpokenFleet
from tests.simulators.tiny_bundle import TARGET

BACKENDS = ("sqlite", "postgresql")
SUMS = (tables.totals, tables.cells, tables.costs, tables.epochs, tables.hours, tables.devices)


@pytest.fixture
def ref(fleet: SpokenFleet, repository: Repository) -> ReleaseRef:
    return fleet.approve(repository.publish("1.0.0"))


def said(fleet: SpokenFleet, ref: ReleaseRef, device: str, sequence: int) -> Inbound:
    """A window with other counts in each place."""
    delays = np.zeros(latency.BINS, "<i8")
    delays[sequence % 5] = 3 + sequence
    window = StatsWindow(
        device=device, epoch="e", sequence=sequence, opened_ms=fleet.clock() - 2000,
        closed_ms=fleet.clock(), release=ref, target=TARGET, arm="incumbent", rows=3 + sequence,
        latency=delays.tobytes(), cost=Cost(cpu_us=10, span_ms=2000, sent_bytes=sequence),
    )  # fmt: skip
    with fleet.services.database.read() as connection:
        schema = fleet.services.catalog.require(connection, ref.digest).window_schema
    payload = codec.encode(messages.pack(window, schema))
    return Inbound(topic=topics.up(device, "stats"), payload=payload)


def traffic(fleet: SpokenFleet, ref: ReleaseRef) -> list[Inbound]:
    """Windows of several devices, some twice, some untrue, one unreadable."""
    found = [said(fleet, ref, f"d{n}", s) for s in range(6) for n in range(7)]
    foreign = msgspec.structs.replace(found[0], topic=topics.up("d9", "stats"))
    broken = msgspec.structs.replace(found[0], payload=found[0].payload[:-3])
    return [*found[:20], found[3], foreign, *found[20:], broken, *found[:9]]


def stored(fleet: SpokenFleet) -> dict[str, list[tuple[Any, ...]]]:
    with fleet.services.database.read() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(sa.select(table))), key=repr)
            for table in (*SUMS, tables.windows, tables.rejected)
        }


def test_a_batch_is_what_its_messages_are_one_by_one(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    batch = traffic(fleet, ref)
    fleet.services.ingest.take(batch[:25])
    fleet.services.ingest.take(batch[25:])
    together = stored(fleet)
    with fleet.services.database.write() as connection:
        for table in (*SUMS, tables.days, tables.windows, tables.rejected):
            connection.execute(table.delete())
    for message in batch:
        fleet.services.ingest.take([message])
    alone = stored(fleet)
    assert together == alone
    assert len(together["windows"]) == 42
    assert sum(row[3] for row in together["totals"]) == 7 * sum(3 + s for s in range(6))


def statements(fleet: SpokenFleet, batch: Sequence[Inbound]) -> int:
    """How often the database is asked for a batch."""
    seen = itertools.count()
    engine = fleet.services.database._backend.engine

    def count(*_: Any) -> None:
        next(seen)

    sa.event.listen(engine, "before_cursor_execute", count)
    fleet.services.ingest.take(batch)
    sa.event.remove(engine, "before_cursor_execute", count)
    return next(seen)


def test_more_windows_take_no_more_statements(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    names = [f"d{number}" for number in range(60)]
    fleet.services.ingest.take([said(fleet, ref, name, 0) for name in names])
    few = statements(fleet, [said(fleet, ref, name, 1) for name in names[:5]])
    many = statements(fleet, [said(fleet, ref, name, s) for name in names for s in (2, 3)])
    assert many == few
