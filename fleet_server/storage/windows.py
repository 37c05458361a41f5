"""Queries on statistics windows and on the sums that are kept of them."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from fleet_server.storage import bulk
from fleet_server.storage.tables import cells, epochs, totals, windows

Int64 = npt.NDArray[np.int64]
TotalsKey = tuple[str, str, str]
"""Device, release and arm."""
CELLS_AT_ONCE = 150

OUTSIDE = ("", -1)
"""Rollout and stage of cells that belong to none."""


class CellKey(NamedTuple):
    """What a cell sums over: one device, release and arm in one slice of one stage."""

    rollout: str
    stage: int
    device: str
    digest: str
    arm: str
    slice: str
    """``name=value,...`` in the order of names; empty where the device declares none."""


class CellCounts(msgspec.Struct, kw_only=True):
    """Sums over windows; ``latency`` by power-of-two bin of microseconds."""

    rows: int = 0
    errors: int = 0
    right: int = 0
    wrong: int = 0
    latency: list[int] = []
    agree: int = 0
    disagree: int = 0
    both_right: int = 0
    only_active_right: int = 0
    only_shadow_right: int = 0
    both_wrong: int = 0
    scored: int = 0
    unusual: int = 0

    def merge(self, other: "CellCounts") -> None:
        """Add another cell's counts."""
        for name in self.__struct_fields__:
            if name != "latency":
                setattr(self, name, getattr(self, name) + getattr(other, name))
        self.latency = [a + b for a, b in zip_longest(self.latency, other.latency, fillvalue=0)]


class Totals(msgspec.Struct, kw_only=True):
    """A device's sums for one release and arm since it was first seen."""

    rows: int = 0
    errors: int = 0
    right: int = 0
    wrong: int = 0
    paired: int = 0
    paired_labelled: int = 0


class StoredWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One window as it came."""

    device: str
    epoch: str
    sequence: int
    received_ms: int
    opened_ms: int
    closed_ms: int
    digest: str
    target: str
    arm: str
    rollout: str | None
    slices: dict[str, str]
    rows: int
    errors: int
    late: int
    right: int
    wrong: int
    body: bytes


def add_windows(connection: sa.Connection, found: Sequence[StoredWindow]) -> None:
    """Store windows; those that were stored before stay as they are."""
    bulk.put(connection, windows, [msgspec.structs.asdict(w) for w in found], replace=False)


def forget(connection: sa.Connection, before_ms: int, most: int) -> int:
    """Delete windows that were received before a time, the oldest first; how many were.

    What they add up to, and that they came, is stored elsewhere.
    """
    key = (windows.c.device, windows.c.epoch, windows.c.sequence)
    oldest = (
        sa.select(*key)
        .where(windows.c.received_ms < before_ms)
        .order_by(windows.c.received_ms)
        .limit(most)
    )
    return int(connection.execute(windows.delete().where(sa.tuple_(*key).in_(oldest))).rowcount)


def heard_of(connection: sa.Connection, device: str, digest: str, since_ms: int) -> bool:
    """Whether a window of a release came from a device since then; a shadow's is none."""
    query = (
        sa.select(windows.c.sequence)
        .where(
            windows.c.device == device,
            windows.c.digest == digest,
            windows.c.arm != "shadow",
            windows.c.received_ms >= since_ms,
        )
        .limit(1)
    )
    return connection.execute(query).first() is not None


def lost_windows(connection: sa.Connection, names: Sequence[str] | None = None) -> dict[str, int]:
    """Device -> sequence numbers between its first and last that never arrived; of all, or some."""
    missing = epochs.c.last - epochs.c.first + 1 - epochs.c.taken
    query = sa.select(epochs.c.device, sa.func.sum(missing)).group_by(epochs.c.device)
    if names is None:
        return {device: int(lost) for device, lost in connection.execute(query)}
    found: dict[str, int] = {}
    for part in bulk.chunks(names, bulk.AT_ONCE):
        some = query.where(epochs.c.device.in_(part))
        found |= {device: int(lost) for device, lost in connection.execute(some)}
    return found


def totals_of(connection: sa.Connection, device: str, digest: str, arm: str) -> Totals:
    """A device's sums; zeros where there are none."""
    return every_total(connection, [(device, digest, arm)])[device, digest, arm]


def every_total(connection: sa.Connection, keys: Sequence[TotalsKey]) -> dict[TotalsKey, Totals]:
    """Sums by device, release and arm; zeros where there are none."""
    found = {key: Totals() for key in keys}
    columns = sa.tuple_(totals.c.device, totals.c.digest, totals.c.arm)
    for part in bulk.chunks(found, bulk.AT_ONCE):
        for row in connection.execute(sa.select(totals).where(columns.in_(part))).mappings():
            values = {name: row[name] for name in Totals.__struct_fields__}
            found[row["device"], row["digest"], row["arm"]] = Totals(**values)
    return found


def put_totals(connection: sa.Connection, values: Mapping[TotalsKey, Totals]) -> None:
    """Replace devices' sums."""
    rows = [
        {"device": device, "digest": digest, "arm": arm, **msgspec.structs.asdict(sums)}
        for (device, digest, arm), sums in values.items()
    ]
    bulk.put(connection, totals, rows)


def served(connection: sa.Connection) -> Totals:
    """Sums over every answer of the fleet; shadow rows are not answers."""
    columns = [sa.func.sum(totals.c[name]).label(name) for name in Totals.__struct_fields__]
    row = connection.execute(sa.select(*columns).where(totals.c.arm != "shadow")).mappings().one()
    return Totals(**{name: int(row[name] or 0) for name in Totals.__struct_fields__})


def totals_by_release(connection: sa.Connection) -> dict[str, Totals]:
    """Digest -> sums over devices, for rows that the release itself answered."""
    columns = [sa.func.sum(totals.c[name]).label(name) for name in Totals.__struct_fields__]
    query = (
        sa.select(totals.c.digest, *columns)
        .where(totals.c.arm.not_in(("shadow", "fallback")))
        .group_by(totals.c.digest)
    )
    return {
        row["digest"]: Totals(**{name: int(row[name]) for name in Totals.__struct_fields__})
        for row in connection.execute(query).mappings()
    }


def add_to_cells(connection: sa.Connection, sums: Mapping[CellKey, CellCounts]) -> None:
    """Merge counts into cells."""
    columns = sa.tuple_(*(cells.c[name] for name in CellKey._fields))
    merged = dict(sums)
    for part in bulk.chunks(sums, CELLS_AT_ONCE):
        for row in connection.execute(sa.select(cells).where(columns.in_(part))).mappings():
            merged[_cell_key(row)].merge(_cell_counts(row))
    rows = [
        {
            **key._asdict(),
            **msgspec.structs.asdict(counts),
            "latency": np.array(counts.latency, dtype=np.int64).tobytes(),
        }
        for key, counts in merged.items()
    ]
    bulk.put(connection, cells, rows)


def cells_of(connection: sa.Connection, rollout: str, stage: int) -> dict[CellKey, CellCounts]:
    """Every cell of one stage."""
    query = sa.select(cells).where(cells.c.rollout == rollout, cells.c.stage == stage)
    return {_cell_key(row): _cell_counts(row) for row in connection.execute(query).mappings()}


CELL_COLUMNS = (
    "device",
    "arm",
    "slice",
    "latency",
    "rows",
    "errors",
    "right",
    "wrong",
    "both_right",
    "only_active_right",
    "only_shadow_right",
    "both_wrong",
    "scored",
    "unusual",
)


def cell_rows(
    connection: sa.Connection, rollout: str, stage: int, digest_of: Mapping[str, str]
) -> list[sa.Row[Any]]:
    """Cells of one stage in some arms, where they are of the release that goes with the arm.

    Rows of :data:`CELL_COLUMNS`; ``latency`` as stored, little-endian int64.
    """
    wanted = [
        sa.and_(cells.c.arm == arm, cells.c.digest == digest) for arm, digest in digest_of.items()
    ]
    query = sa.select(*(cells.c[name] for name in CELL_COLUMNS)).where(
        cells.c.rollout == rollout, cells.c.stage == stage, sa.or_(sa.false(), *wanted)
    )
    return list(connection.execute(query).fetchall())


def outcomes_before(
    connection: sa.Connection, digest: str, arms: Sequence[str], rollout: str, stage: int
) -> list[tuple[str, str, int, int]]:
    """Device, slice, right and wrong rows of a release in some arms, all but one stage's."""
    query = (
        sa.select(
            cells.c.device, cells.c.slice, sa.func.sum(cells.c.right), sa.func.sum(cells.c.wrong)
        )
        .where(
            cells.c.digest == digest,
            cells.c.arm.in_(arms),
            sa.or_(cells.c.rollout != rollout, cells.c.stage != stage),
        )
        .group_by(cells.c.device, cells.c.slice)
        .order_by(cells.c.device, cells.c.slice)
    )
    return [(d, s, int(right), int(wrong)) for d, s, right, wrong in connection.execute(query)]


def cells_of_release(connection: sa.Connection, digest: str) -> dict[CellKey, CellCounts]:
    """Every cell of one release, of any stage and outside of rollouts."""
    query = sa.select(cells).where(cells.c.digest == digest)
    return {_cell_key(row): _cell_counts(row) for row in connection.execute(query).mappings()}


def _cell_key(row: sa.RowMapping) -> CellKey:
    return CellKey(**{name: row[name] for name in CellKey._fields})


def _cell_counts(row: sa.RowMapping) -> CellCounts:
    values = {n: row[n] for n in CellCounts.__struct_fields__ if n != "latency"}
    latency = np.frombuffer(row["latency"], dtype=np.int64).tolist()
    return CellCounts(latency=latency, **values)


class Served(NamedTuple):
    """What a candidate did in a rollout."""

    devices: int
    rows: int
    errors: int


def served_by(connection: sa.Connection, rollout: str, digest: str) -> Served:
    """Sums over all stages of what a rollout's candidate answered to people."""
    query = sa.select(
        sa.func.count(cells.c.device.distinct()),
        sa.func.sum(cells.c.rows),
        sa.func.sum(cells.c.errors),
    ).where(cells.c.rollout == rollout, cells.c.digest == digest, cells.c.arm == "candidate")
    return Served(*(int(value or 0) for value in connection.execute(query).one()))
