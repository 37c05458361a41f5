"""What the server gathers for a judgement, from a real database."""

from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa

from edge_core.messages.telemetry import Arm
from fleet_server.domain.cohort import Role
from fleet_server.domain.columns import ARMS, Columns
from fleet_server.domain.evidence import Baseline, Evidence, Member
from fleet_server.services import evidence
from fleet_server.storage import windows
from fleet_server.storage.database import Database
from fleet_server.storage.rollouts import StoredRollout
from fleet_server.storage.windows import OUTSIDE, CellCounts, CellKey

NEW, OLD = "a" * 64, "b" * 64
SLICE = "side=left"
ROLES: dict[str, Role] = {"d1": "candidate", "d2": "control"}


def rollout(**changes: Any) -> StoredRollout:
    plain = StoredRollout(
        rollout="r1", model="m", digest=NEW, incumbent=OLD, plan=b"", salt="", state="running",
        stage=1, stage_started_ms=1000, deadline_from_ms=0, created_ms=0, created_by="me",
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def put(
    connection: sa.Connection,
    device: str,
    digest: str,
    arm: Arm,
    place: tuple[str, int] = ("r1", 1),
    **counts: Any,
) -> None:
    key = CellKey(*place, device, digest, arm, SLICE)
    windows.add_to_cells(connection, {key: CellCounts(**counts)})


def gather(database: Database, kind: Any = "canary", **changes: Any) -> Evidence:
    members = [Member(device=d, role=role, confirmed=True) for d, role in ROLES.items()]
    with database.read() as connection:
        return evidence.gather(
            connection, rollout(**changes), kind, members, [], {}, 61_000, noisy=False
        )


def rows(seen: Evidence) -> dict[tuple[int, str], float]:
    """Rows by device and arm."""
    cells = Columns.of(seen)
    places = zip(cells.device.tolist(), cells.arm.tolist(), cells["rows"].tolist(), strict=True)
    return {(device, ARMS[arm]): count for device, arm, count in places}


def test_only_rows_of_the_release_that_an_arm_stands_for_are_evidence(database: Database) -> None:
    with database.write() as connection:
        put(connection, "d1", NEW, "candidate", rows=10)
        put(connection, "d1", OLD, "candidate", rows=99)
        put(connection, "d1", OLD, "shadow", rows=11)
        put(connection, "d1", NEW, "shadow", rows=98)
        put(connection, "d2", OLD, "control", rows=12)
        put(connection, "d1", NEW, "candidate", place=("r1", 0), rows=97)
    assert rows(gather(database)) == {(0, "candidate"): 10, (0, "shadow"): 11, (1, "control"): 12}
    assert rows(gather(database, "shadow"))[0, "shadow"] == 98


def test_a_baseline_answers_for_the_release_that_its_device_should_run(database: Database) -> None:
    with database.write() as connection:
        for device in ROLES:
            put(connection, device, NEW, "fallback", rows=5)
            put(connection, device, OLD, "fallback", rows=7)
    assert rows(gather(database)) == {(0, "fallback"): 5, (1, "fallback"): 7}


def test_all_counts_of_a_cell_arrive_whatever_its_latency_bins(database: Database) -> None:
    with database.write() as connection:
        put(connection, "d1", NEW, "candidate", rows=300, errors=2, right=200, wrong=70_000,
            latency=[1, 0, 3], scored=9, unusual=4)  # fmt: skip
        put(connection, "d2", OLD, "control", rows=2**40, latency=[5], both_wrong=6)
    cells = Columns.of(gather(database))
    assert cells["wrong"].tolist() == [70_000, 0]
    assert cells["rows"].tolist() == [300, 2**40]
    assert cells["unusual"].tolist() == [4, 0]
    assert cells["both_wrong"].tolist() == [0, 6]
    assert cells.latency.tolist() == [[1, 0, 3], [5, 0, 0]]


def test_what_the_incumbent_did_before_is_of_every_stage_but_this(database: Database) -> None:
    with database.write() as connection:
        put(connection, "d1", OLD, "incumbent", place=OUTSIDE, right=5, wrong=1)
        put(connection, "d1", OLD, "control", place=("r1", 0), right=2, wrong=3)
        put(connection, "d1", OLD, "shadow", place=("r1", 0), right=90)
        put(connection, "d2", OLD, "control", right=80)
    assert gather(database).baselines == [Baseline(device="d1", slice=SLICE, right=7, wrong=4)]


def test_without_cells_there_is_nothing_and_no_error(database: Database) -> None:
    cells = Columns.of(gather(database))
    assert cells.devices == 2
    assert not cells.device.size
    assert cells.latency.shape == (0, 0)
    assert np.array_equal(cells.candidates, [True, False])
