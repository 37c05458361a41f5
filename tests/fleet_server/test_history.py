"""Sums by hour and day: exact, once, and all that is left when windows are gone."""

import random
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa

from edge_core.messages.telemetry import FallbackCounts, StatsWindow
from edge_core.release import ReleaseRef
from edge_core.stats import latency
from fleet_server.services.errors import InvalidRequest, NotFound
from fleet_server.services.history import HistoryView, Question
from fleet_server.services.labels import ToldAnswer, ToldLabel
from fleet_server.services.retention import Retention
from fleet_server.storage import epochs, rollups, tables, windows
from fleet_server.storage.rollups import DAY_MS, HOUR_MS
from tests.simulators.spoken_fleet import SpokenFleet
from tests.simulators.tiny_bundle import CLASSES, TARGET

BACKENDS = ("sqlite", "postgresql")


@pytest.fixture
def ref(fleet: SpokenFleet, repository: Any) -> ReleaseRef:
    found: ReleaseRef = fleet.approve(repository.publish("1.0.0"))
    fleet.clock.now -= fleet.clock.now % DAY_MS
    return found


def window(ref: ReleaseRef, sequence: int, opened_ms: int, **changes: Any) -> StatsWindow:
    plain = StatsWindow(
        device="d1",
        epoch="e",
        sequence=sequence,
        opened_ms=opened_ms,
        closed_ms=opened_ms + 60_000,
        release=ref,
        target=TARGET,
        arm="incumbent",
        slices={"side": "left"},
        rows=7,
    )
    return msgspec.structs.replace(plain, **changes)


def sums(fleet: SpokenFleet, table: sa.Table) -> list[tuple[int, int, int]]:
    query = sa.select(
        table.c.start_ms, sa.func.sum(table.c.windows), sa.func.sum(table.c.rows)
    ).group_by(table.c.start_ms)
    with fleet.services.database.read() as connection:
        return sorted(tuple(map(int, row)) for row in connection.execute(query))


def count(fleet: SpokenFleet, table: sa.Table) -> int:
    with fleet.services.database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def test_windows_add_to_their_hour_and_day_however_late_and_often(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    start = fleet.clock()
    fleet.clock.now = start + 30 * HOUR_MS
    sent = [window(ref, number, start + number * HOUR_MS // 2) for number in range(60)]
    order = sent * 3
    random.Random(7).shuffle(order)
    for one in order:
        fleet.window(one)
    assert sums(fleet, tables.hours) == [(start + h * HOUR_MS, 2, 14) for h in range(30)]
    assert sums(fleet, tables.days) == [(start, 48, 336), (start + DAY_MS, 12, 84)]


def test_a_window_sent_again_after_its_row_is_gone_counts_nowhere(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    sent = [window(ref, number, fleet.clock()) for number in (0, 1, 5)]
    for one in sent:
        fleet.window(one)
    before = sums(fleet, tables.hours), sums(fleet, tables.days)
    fleet.clock.now += 3 * DAY_MS
    fleet.services.retention.prune()
    assert count(fleet, tables.windows) == 0
    for one in sent:
        fleet.window(one)
    assert (sums(fleet, tables.hours), sums(fleet, tables.days)) == before
    assert count(fleet, tables.windows) == 0
    fleet.window(window(ref, 3, fleet.clock() - 3 * DAY_MS))
    assert sums(fleet, tables.days)[0][1] == 4, "what was missing is taken however late"
    with fleet.services.database.read() as connection:
        assert windows.lost_windows(connection) == {"d1": 2}


def test_outboxes_of_earlier_servers_are_written_down_before_their_windows_go(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    sent = [window(ref, number, fleet.clock()) for number in (0, 1, 2, 9)]
    for one in sent:
        fleet.window(one)
    with fleet.services.database.write() as connection:
        connection.execute(tables.epochs.update().values(received=None))
    fleet.window(sent[0])
    assert sums(fleet, tables.days)[0][1] == 4
    fleet.clock.now += 3 * DAY_MS
    fleet.services.retention.prune()
    assert count(fleet, tables.windows) == 0
    for one in sent:
        fleet.window(one)
    assert sums(fleet, tables.days)[0][1] == 4
    with fleet.services.database.write() as connection:
        assert epochs.settle(connection, 10) == 0


def test_hours_older_than_kept_count_in_their_day_alone(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    start = fleet.clock()
    fleet.clock.now += 100 * DAY_MS
    fleet.window(window(ref, 0, start))
    assert sums(fleet, tables.hours) == []
    assert sums(fleet, tables.days) == [(start, 1, 7)]


def test_pruning_takes_small_bites_and_goes_on(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    for number in range(20):
        fleet.window(window(ref, number, fleet.clock()))
    with fleet.services.database.write() as connection:
        assert windows.forget(connection, fleet.clock() + 1, 6) == 6
    fleet.clock.now += 3 * DAY_MS
    retention = Retention(fleet.services.database, fleet.clock, fleet.config.retention)
    retention.prune(budget_seconds=-1.0)
    left = count(fleet, tables.windows)
    retention.prune()
    assert left in (0, 14)
    assert count(fleet, tables.windows) == 0


def test_the_database_stays_as_large_as_the_fleet_for_120_days(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    devices, every = ("d1", "d2"), 12 * HOUR_MS
    largest: dict[str, int] = {}
    total = 0
    for step in range(120 * 2):
        for device in devices:
            fleet.window(window(ref, step, fleet.clock(), device=device))
            total += 7
        fleet.clock.now += every
        fleet.services.retention.prune()
        if step % 40 == 39:
            for table in (tables.windows, tables.hours, tables.epochs, tables.cells):
                largest[table.name] = max(largest.get(table.name, 0), count(fleet, table))
    assert largest["windows"] <= 2 * (2 * 2 + 1)
    assert largest["hours"] <= 90 * 2 + 1
    assert (largest["epochs"], largest["cells"]) == (2, 2)
    assert count(fleet, tables.days) == 120
    assert sum(rows for _, _, rows in sums(fleet, tables.days)) == total
    with fleet.services.database.read() as connection:
        packed = connection.execute(sa.select(tables.epochs.c.received)).scalars().all()
    assert {len(one) for one in packed} == {16}, "one range"


def test_history_is_told_by_hour_release_arm_and_slice(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    start = fleet.clock()
    bins = np.zeros(latency.BINS, "<i8")
    bins[3] = 7
    fleet.window(window(ref, 0, start, latency=bins.tobytes()))
    fleet.window(window(ref, 1, start, slices={"side": "right"}, latency=bins.tobytes()))
    causes = FallbackCounts(missing=4, breaker=3)
    fleet.window(window(ref, 2, start + HOUR_MS, arm="fallback", fallbacks=causes))
    fleet.clock.now += 2 * HOUR_MS

    def ask(model: str, **asked: Any) -> list[HistoryView]:
        return fleet.services.history.tell(Question(model=model, **asked))

    one, two = ask("tiny-motion")
    assert (one.start_ms, one.release, one.arm) == (start, ref.name, "incumbent")
    assert (one.rows, one.windows, one.latency[3], one.accuracy) == (14, 2, 14, None)
    assert (two.arm, two.fallbacks["missing"], two.fallbacks["breaker"]) == ("fallback", 4, 3)
    assert [v.rows for v in ask("tiny-motion", slice_="side=left")] == [7, 7]
    assert [v.rows for v in ask("tiny-motion", resolution="day", release=ref.name)] == [7, 14]
    assert ask("tiny-motion", to_ms=start) == []
    with pytest.raises(NotFound, match="other"):
        ask("other")
    with pytest.raises(InvalidRequest, match="before"):
        ask("tiny-motion", from_ms=5, to_ms=5)


def test_an_answer_that_would_be_too_long_is_refused(
    fleet: SpokenFleet, ref: ReleaseRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        fleet.window(window(ref, number, fleet.clock() - number * HOUR_MS))
    monkeypatch.setattr("fleet_server.services.history.MOST_SUMS", 2)
    with pytest.raises(InvalidRequest, match="too long"):
        fleet.services.history.tell(Question(model="tiny-motion"))


def test_sums_merge_in_any_order() -> None:
    parts = [
        rollups.RollupCounts(rows=n, latency=np.arange(n), counts=np.arange(2 * n))
        for n in range(6)
    ]
    found = []
    for order in (parts, parts[::-1]):
        whole = rollups.RollupCounts()
        for part in order:
            whole.merge(part)
        found.append((whole.rows, whole.latency.tolist(), whole.counts.tolist()))
    assert found[0] == found[1]
    assert found[0][:2] == (15, [0, 4, 6, 6, 4])


def counted(fleet: SpokenFleet, ref: ReleaseRef, by_bin: dict[int, int]) -> bytes:
    """Channel counts of rows by bin of confidence."""
    with fleet.services.database.read() as connection:
        layout = fleet.services.catalog.require(connection, ref.digest).layout
    found = np.zeros(layout.total, "<i8")
    place = layout.slice_of("confidence")
    for bin_, rows in by_bin.items():
        found[place.start + bin_] = rows
    return found.tobytes()


def by_confidence(fleet: SpokenFleet, ref: ReleaseRef, by_bin: dict[int, int]) -> bytes:
    with fleet.services.database.read() as connection:
        layout = fleet.services.catalog.require(connection, ref.digest).layout
    found = np.zeros(layout.confidence_size, "<i8")
    for bin_, rows in by_bin.items():
        found[bin_] = rows
    return found.tobytes()


def test_accuracy_is_estimated_where_no_labels_come(fleet: SpokenFleet, ref: ReleaseRef) -> None:
    """Labels of one day say what confidence means, and the next day has none."""
    low, high, start = 1, 5, fleet.clock()
    fleet.clock.now = start + DAY_MS + HOUR_MS
    fleet.produce(ref, ["d1"])
    fleet.window(
        window(
            ref, 1, start, rows=2000, counts=counted(fleet, ref, {low: 1000, high: 1000}),
            right=by_confidence(fleet, ref, {low: 500, high: 950}),
            wrong=by_confidence(fleet, ref, {low: 500, high: 50}),
        )
    )  # fmt: skip
    harder = counted(fleet, ref, {low: 900, high: 100})
    fleet.window(window(ref, 2, start + DAY_MS, rows=1000, counts=harder))
    told, quiet = fleet.services.history.tell(Question(model=ref.model, resolution="day"))
    assert told.accuracy == 0.725
    assert told.estimated is not None
    assert told.estimated.accuracy == pytest.approx(0.725, abs=0.01)
    assert quiet.accuracy is None
    assert quiet.estimated is not None
    assert quiet.estimated.low < 0.9 * 0.5 + 0.1 * 0.95 < quiet.estimated.high
    status = fleet.services.label_status.of_model(ref.model)
    assert status.estimated is not None
    assert (status.estimated.rows, status.estimated.labelled) == (3000, 2000)


def test_labels_that_are_told_to_the_server_say_what_confidence_means(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    start = fleet.clock()
    fleet.clock.now = start + HOUR_MS
    answer = ToldAnswer(
        device="d1", release=ref.digest, predicted=CLASSES[0], confidence=0.999, at_ms=start,
        slices={"side": "right"},
    )  # fmt: skip
    labels = [
        ToldLabel(prediction_id=f"p{n}", label=CLASSES[n % 4 == 0], answer=answer)
        for n in range(400)
    ]
    fleet.services.labels.take(labels, "labeller")
    with fleet.services.database.read() as connection:
        layout = fleet.services.catalog.require(connection, ref.digest).layout
    (bin_,) = layout.confidence_bins(np.array([0.999], np.float32))
    fleet.window(window(ref, 1, start, rows=50, counts=counted(fleet, ref, {int(bin_): 50})))
    (found,) = fleet.services.history.tell(Question(model=ref.model))
    assert found.estimated is not None
    assert found.estimated.accuracy == pytest.approx(0.75, abs=0.001)
    assert found.estimated.labelled == 400
    left = Question(model=ref.model, slice_="side=left")
    (other,) = fleet.services.history.tell(left)
    assert other.estimated is None  # all labels are of the other side


def test_the_baseline_is_not_estimated_by_what_the_models_confidence_means(
    fleet: SpokenFleet, ref: ReleaseRef
) -> None:
    start = fleet.clock()
    fleet.clock.now = start + HOUR_MS
    calm = counted(fleet, ref, {5: 500})
    right = by_confidence(fleet, ref, {5: 400})
    fleet.window(window(ref, 1, start, rows=500, counts=calm, right=right))
    causes = FallbackCounts(error=10)
    fleet.window(window(ref, 2, start, rows=10, arm="fallback", fallbacks=causes))
    found = {v.arm: v.estimated for v in fleet.services.history.tell(Question(model=ref.model))}
    assert found["fallback"] is None
    assert found["incumbent"] is not None
