"""Messages into a real database: nothing twice, nothing untrue, nothing that breaks the server."""

import hashlib
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_core.features import definition as definitions
from edge_core.features import evaluation
from edge_core.messages import codec, topics
from edge_core.messages.telemetry import (
    Online,
    PairedCounts,
    Refusal,
    ReportedState,
    Sample,
    StatsWindow,
)
from edge_core.release import ReleaseRef
from fleet_server.repository_watch import RepositoryWatch
from fleet_server.services.catalog import Catalog
from fleet_server.services.ingest import Inbound, Ingest
from fleet_server.storage import devices, journal, parity_counts, refusals, tables, windows
from fleet_server.storage.database import Database
from tests.simulators import first_windows
from tests.simulators.tiny_bundle import DEFINITION, TARGET

BACKENDS = ("sqlite", "postgresql")

I64 = "<i8"


@pytest.fixture
def release(repository: Any, watch: RepositoryWatch) -> ReleaseRef:
    ref: ReleaseRef = repository.publish("1.0.0")
    watch.look()
    return ref


@pytest.fixture
def ingest(database: Database, catalog: Catalog, clock: Any) -> Ingest:
    return Ingest(database, catalog, clock, drift_period_seconds=10, future_seconds=600)


def window(release: ReleaseRef, clock: Any, **changes: Any) -> StatsWindow:
    plain = StatsWindow(
        device="d1",
        epoch="e",
        sequence=1,
        opened_ms=clock() - 2000,
        closed_ms=clock(),
        release=release,
        target=TARGET,
        arm="incumbent",
        slices={"side": "left"},
        rows=10,
    )
    return msgspec.structs.replace(plain, **changes)


def stats(message: StatsWindow, topic_device: str = "d1") -> Inbound:
    return Inbound(topic=topics.up(topic_device, "stats"), payload=first_windows.encode(message))


def labels(catalog: Catalog, database: Database, release: ReleaseRef, count: int) -> bytes:
    with database.read() as connection:
        place = catalog.require(connection, release.digest).layout.slice_of("confidence")
    packed = np.zeros(place.stop - place.start, I64)
    packed[1] = count
    return packed.tobytes()


def totals(database: Database, release: ReleaseRef, arm: str = "incumbent") -> windows.Totals:
    with database.read() as connection:
        return windows.totals_of(connection, "d1", release.digest, arm)


def reasons(database: Database) -> dict[str, int]:
    with database.read() as connection:
        return {r.reason: r.count for r in journal.rejections(connection, 100)}


def test_a_window_is_counted_once_however_often_it_comes(
    ingest: Ingest, release: ReleaseRef, clock: Any, database: Database
) -> None:
    message = stats(window(release, clock))
    ingest.take([message, message])
    ingest.take([message])
    assert totals(database, release).rows == 10
    with database.read() as connection:
        assert windows.lost_windows(connection) == {"d1": 0}
    assert reasons(database) == {}


def test_unusual_confidences_of_a_window_stand_in_its_cell(
    ingest: Ingest, release: ReleaseRef, clock: Any, database: Database, catalog: Catalog
) -> None:
    with database.read() as connection:
        layout = catalog.require(connection, release.digest).layout
    counts, place = np.zeros(layout.total, I64), layout.slice_of("confidence")
    usual = place.start + int(np.flatnonzero(~layout.unusual_confidence)[0])
    counts[place.start], counts[usual], counts[place.stop - 1] = 2, 7, 1
    ingest.take([stats(window(release, clock, counts=counts.tobytes()))])
    with database.read() as connection:
        (cell,) = windows.cells_of(connection, *windows.OUTSIDE).values()
    assert (cell.scored, cell.unusual) == (10, 3)


def test_gaps_in_the_sequence_are_lost_windows_until_they_come(
    ingest: Ingest, release: ReleaseRef, clock: Any, database: Database
) -> None:
    def lost() -> int:
        with database.read() as connection:
            return windows.lost_windows(connection)["d1"]

    ingest.take([stats(window(release, clock, sequence=s)) for s in (3, 4, 7)])
    assert lost() == 2
    ingest.take([stats(window(release, clock, sequence=5))])
    assert lost() == 1


def test_labels_and_pairs_are_summed(
    ingest: Ingest, release: ReleaseRef, clock: Any, database: Database, catalog: Catalog
) -> None:
    right = labels(catalog, database, release, 6)
    wrong = labels(catalog, database, release, 3)
    paired = PairedCounts(agree=8, disagree=2, both_right=5, only_active_right=2)
    shadow = window(release, clock, arm="shadow", right=right, wrong=wrong, paired=paired)
    ingest.take([stats(msgspec.structs.replace(shadow, sequence=s)) for s in (1, 2)])
    found = totals(database, release, "shadow")
    assert (found.rows, found.right, found.wrong) == (20, 12, 6)
    assert (found.paired, found.paired_labelled) == (20, 14)
    with database.read() as connection:
        cells = windows.cells_of(connection, *windows.OUTSIDE)
    (key, cell), *_ = cells.items()
    assert (key.device, key.arm, key.slice) == ("d1", "shadow", "side=left")
    assert (cell.agree, cell.both_right, cell.only_active_right) == (16, 10, 4)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device": "d2"}, "speaks for another device"),
        ({"target": "npu-other"}, "unknown target"),
        ({"slices": {"side": "top"}}, "undeclared slice"),
        ({"slices": {f"s{i}": "x" for i in range(500)}}, "undeclared slice"),
        ({"errors": 2_000_000_000}, "impossible counts"),
        ({"rows": 2_000_000_000}, "impossible counts"),
        ({"counts": b"\x01\x00\x00"}, "unreadable message"),
        ({"counts": b"\x01" + bytes(7)}, "wrong length"),
        ({"latency": b"\x00" * 16}, "wrong length"),
        ({"right": b"\x00" * 8}, "wrong length"),
        ({"paired": PairedCounts(agree=1)}, "impossible counts"),
        ({"arm": "shadow", "paired": PairedCounts(agree=11)}, "impossible counts"),
        ({"arm": "shadow", "paired": PairedCounts(both_right=300)}, "impossible counts"),
    ],
)
def test_a_window_that_cannot_be_true_is_counted_and_left_out(
    ingest: Ingest,
    release: ReleaseRef,
    clock: Any,
    database: Database,
    changes: dict[str, Any],
    reason: str,
) -> None:
    ingest.take([stats(window(release, clock, **changes)), stats(window(release, clock))])
    assert reasons(database) == {reason: 1}
    assert totals(database, release).rows == 10


def test_a_release_that_nobody_approved_is_refused(
    ingest: Ingest, release: ReleaseRef, clock: Any, database: Database
) -> None:
    unknown = ReleaseRef(model="tiny-motion", version="6.6.6", digest="6" * 64)
    renamed = msgspec.structs.replace(release, version="9.0.0")
    ingest.take([stats(window(unknown, clock)), stats(window(renamed, clock))])
    assert reasons(database) == {"unknown release": 2}


def test_rejected_windows_leave_only_their_counts(
    ingest: Ingest, release: ReleaseRef, clock: Any, database: Database
) -> None:
    def rows() -> dict[str, int]:
        with database.read() as connection:
            found = {
                table.name: connection.execute(sa.select(sa.func.count()).select_from(table))
                for table in tables.metadata.sorted_tables
            }
            return {name: result.scalar_one() for name, result in found.items()}

    before = rows()
    for number in range(50):
        digest = hashlib.sha256(bytes([number])).hexdigest()
        unknown = ReleaseRef(model="made-up", version="1.0.0", digest=digest)
        ingest.take([stats(window(unknown, clock, epoch=f"e{number}"))])
    assert rows() == before | {"rejected": 1}


def test_a_rejected_window_is_not_a_lost_one(
    ingest: Ingest, release: ReleaseRef, clock: Any, database: Database
) -> None:
    ingest.take([stats(window(release, clock, sequence=s)) for s in (1, 2)])
    for _ in range(2):
        ingest.take([stats(window(release, clock, sequence=3, target="other"))])
    ingest.take([stats(window(release, clock, sequence=4))])
    with database.read() as connection:
        assert windows.lost_windows(connection) == {"d1": 0}


def test_more_labels_than_rows_are_refused(
    ingest: Ingest, release: ReleaseRef, clock: Any, database: Database, catalog: Catalog
) -> None:
    lie = labels(catalog, database, release, 5000)
    ingest.take([stats(window(release, clock, right=lie))])
    assert reasons(database) == {"impossible counts": 1}
    assert totals(database, release).right == 0


def test_channel_counts_beyond_the_rows_are_refused(
    ingest: Ingest, release: ReleaseRef, clock: Any, database: Database, catalog: Catalog
) -> None:
    with database.read() as connection:
        layout = catalog.require(connection, release.digest).layout
    counts = np.zeros(layout.total, I64)
    counts[layout.slice_of("predicted")] = 11
    ingest.take([stats(window(release, clock, counts=counts.tobytes()))])
    assert reasons(database) == {"impossible counts": 1}


def test_a_device_state_is_kept_and_a_new_refusal_is_told_once(
    ingest: Ingest, release: ReleaseRef, clock: Any, database: Database
) -> None:
    refusal = Refusal(release=release, reason="signature is not trusted", at_ms=clock())
    state = ReportedState(
        device="d1",
        at_ms=clock(),
        target=TARGET,
        runtime="onnxruntime 1",
        slices={"side": "left"},
        active=release,
        update="committed",
        refusals=[refusal],
    )
    message = Inbound(topic=topics.up("d1", "state"), payload=codec.encode(state))
    ingest.take([message])
    ingest.take([message])
    with database.read() as connection:
        device = devices.one(connection, "d1")
        assert device is not None
        assert (device.active, device.update_state) == (release.digest, "committed")
        refused = refusals.every(connection)
        assert [r.reason for r in refused] == ["signature is not trusted"]
        texts = [e.text for e in journal.events_after(connection, 0, 100)]
        assert sum("refuses" in text for text in texts) == 1
        assert [a.kind for a in journal.open_alerts(connection, "refusal")] == ["refusal"]


def test_presence_is_kept(ingest: Ingest, database: Database) -> None:
    for online in (True, False):
        payload = codec.encode(Online(device="d1", online=online))
        ingest.take([Inbound(topic=topics.up("d1", "online"), payload=payload)])
        with database.read() as connection:
            device = devices.one(connection, "d1")
        assert device is not None
        assert device.online is online


def test_only_what_a_device_says_itself_now_is_a_sign_of_life(
    ingest: Ingest, clock: Any, database: Database
) -> None:
    def last_seen() -> int:
        with database.read() as connection:
            device = devices.one(connection, "d1")
        assert device is not None
        return device.last_seen_ms

    def tell(message: Online | ReportedState, kind: Any, *, retained: bool) -> None:
        clock.now += 60_000
        topic = topics.up("d1", kind)
        ingest.take([Inbound(topic=topic, payload=codec.encode(message), retained=retained)])

    state = ReportedState(device="d1", at_ms=clock(), target=TARGET, runtime="none")
    tell(state, "state", retained=True)
    first = clock()
    assert last_seen() == first
    tell(state, "state", retained=True)
    tell(Online(device="d1", online=True), "online", retained=True)
    tell(Online(device="d1", online=False), "online", retained=False)
    assert last_seen() == first
    for message, kind in ((state, "state"), (Online(device="d1", online=True), "online")):
        tell(message, kind, retained=False)
        assert last_seen() == clock()


def sample(
    release: ReleaseRef, clock: Any, change: float = 0.0, prediction: str = "p", ahead_ms: int = 0
) -> Inbound:
    rng = np.random.default_rng(1)
    rows = rng.normal(0, 1, (1, DEFINITION.window.samples, 2)).astype("<f4")
    features = evaluation.evaluate(DEFINITION, evaluation.quantise(DEFINITION, rows))
    features = features + np.float32(change)
    message = Sample(
        device="d1",
        prediction_id=prediction,
        at_ms=clock() + ahead_ms,
        release=release,
        target=TARGET,
        arm="incumbent",
        definition=definitions.digest(DEFINITION),
        window=rows.tobytes(),
        features=features.astype("<f4").tobytes(),
        scores=np.zeros(3, "<f4").tobytes(),
    )
    return Inbound(topic=topics.up("d1", "samples"), payload=codec.encode(message))


def test_samples_are_computed_again_bit_for_bit(
    ingest: Ingest, release: ReleaseRef, clock: Any, database: Database
) -> None:
    ingest.take([sample(release, clock), sample(release, clock, change=1e-6, prediction="q")])
    with database.read() as connection:
        (row,) = parity_counts.every(connection)
        alerts = journal.open_alerts(connection, "parity")
    assert (row.compared, row.mismatches) == (2, 1)
    assert "ax_mean" in row.detail
    assert len(alerts) == 1


@pytest.mark.parametrize("ahead_ms", [-1_700_000_000_000, 500_000_000_000])
def test_a_sample_is_compared_whatever_its_clock_says(
    ingest: Ingest, release: ReleaseRef, clock: Any, database: Database, ahead_ms: int
) -> None:
    ingest.take([sample(release, clock, ahead_ms=ahead_ms)])
    with database.read() as connection:
        (row,) = parity_counts.every(connection)
    assert (row.compared, row.mismatches) == (1, 0)
    assert reasons(database) == {}


def test_a_sample_is_compared_once_however_often_it_comes(
    ingest: Ingest, release: ReleaseRef, clock: Any, database: Database
) -> None:
    def compared() -> int:
        with database.read() as connection:
            (row,) = parity_counts.every(connection)
        return row.compared

    ingest.take([sample(release, clock), sample(release, clock)])
    ingest.take([sample(release, clock)])
    assert compared() == 1
    more = [sample(release, clock, prediction=f"p{number}") for number in range(5)]
    ingest.take(more)
    ingest.take(more)
    assert compared() == 6


def test_only_the_last_samples_of_a_device_are_remembered(database: Database) -> None:
    with database.write() as connection:
        for number in range(20):
            for device in ("d1", "d2"):
                assert parity_counts.new_sample(connection, device, f"p{number}", "0" * 64, keep=5)
        assert not parity_counts.new_sample(connection, "d1", "p15", "0" * 64, keep=5)
        assert parity_counts.new_sample(connection, "d1", "p15", "1" * 64, keep=5)
        kept = connection.execute(sa.select(sa.func.count()).select_from(tables.samples))
        assert kept.scalar_one() == 10


def test_random_bytes_are_counted_and_nothing_else(ingest: Ingest, database: Database) -> None:
    @given(kind=st.sampled_from(["stats", "samples", "state", "online"]), payload=st.binary())
    @settings(max_examples=60, deadline=None)
    def take(kind: str, payload: bytes) -> None:
        ingest.take([Inbound(topic=f"serinus/v1/up/d1/{kind}", payload=payload)])

    take()
    assert set(reasons(database)) == {"unreadable message"}


@pytest.mark.parametrize(
    "topic", ["", "x", "serinus/v1/up//stats", "serinus/v1/up/d1/other", "serinus/v2/up/d1/stats"]
)
def test_a_strange_topic_is_counted(ingest: Ingest, database: Database, topic: str) -> None:
    ingest.take([Inbound(topic=topic, payload=b"x")])
    assert reasons(database) == {"unreadable message": 1}


def test_names_of_liars_cannot_fill_the_database(ingest: Ingest, database: Database) -> None:
    flood = [Inbound(topic=f"serinus/v1/up/d{i}/stats", payload=b"x") for i in range(2300)]
    ingest.take(flood)
    with database.read() as connection:
        assert len(journal.rejections(connection, 5000)) <= journal.MOST_REJECTED_KINDS + 1
        assert journal.rejected_count(connection) == 2300
