"""Queries on what windows add up to by hour and by day."""

from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from fleet_server.storage import bulk
from fleet_server.storage.tables import days, hours
from fleet_server.storage.tables.rollups import ARRAYS, FIGURES, LABELLED

Int64 = npt.NDArray[np.int64]

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
SPANS = ((hours, HOUR_MS), (days, DAY_MS))
NONE: Int64 = np.zeros(0, dtype=np.int64)
BATCH = 100
PACKED = (*ARRAYS, *LABELLED)


class RollupKey(NamedTuple):
    """What is summed up: one release and arm in one slice, over all devices."""

    start_ms: int
    digest: str
    arm: str
    slice: str
    """``name=value,...`` in the order of names."""


class RollupCounts(msgspec.Struct, kw_only=True):
    """Sums over windows; arrays of different lengths add up as if padded with zeros."""

    windows: int = 0
    rows: int = 0
    errors: int = 0
    right: int = 0
    wrong: int = 0
    late: int = 0
    dropped: int = 0
    agree: int = 0
    disagree: int = 0
    both_right: int = 0
    only_active_right: int = 0
    only_shadow_right: int = 0
    both_wrong: int = 0
    latency: Int64 = NONE
    counts: Int64 = NONE
    causes: Int64 = NONE
    right_bins: Int64 = NONE
    wrong_bins: Int64 = NONE

    def merge(self, other: "RollupCounts") -> None:
        """Add another's counts."""
        for name in FIGURES:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in PACKED:
            setattr(self, name, _sum(getattr(self, name), getattr(other, name)))


def covers(key: RollupKey, slice_: str | None) -> bool:
    """Whether a sum is of a slice, ``name=value``; every one is of none."""
    return slice_ is None or slice_ in key.slice.split(",")


class Rollup(NamedTuple):
    """One stored sum."""

    key: RollupKey
    counts: RollupCounts


def add(
    connection: sa.Connection, sums: dict[RollupKey, RollupCounts], oldest_hour_ms: int
) -> None:
    """Merge sums by hour into the stored hours and days.

    Hours before ``oldest_hour_ms`` are not kept any more: they count in their day alone.
    """
    _merge(
        connection,
        hours,
        {key: counts for key, counts in sums.items() if key.start_ms >= oldest_hour_ms},
    )
    of_days: dict[RollupKey, RollupCounts] = {}
    for key, counts in sums.items():
        day = key._replace(start_ms=key.start_ms - key.start_ms % DAY_MS)
        of_days.setdefault(day, RollupCounts()).merge(counts)
    _merge(connection, days, of_days)


def between(
    connection: sa.Connection,
    *,
    by_hour: bool,
    digests: list[str],
    from_ms: int,
    to_ms: int,
    limit: int,
) -> list[Rollup]:
    """Stored sums that begin in [from, to), oldest first."""
    table = hours if by_hour else days
    query = (
        sa.select(table)
        .where(table.c.start_ms >= from_ms, table.c.start_ms < to_ms, table.c.digest.in_(digests))
        .order_by(table.c.start_ms, table.c.digest, table.c.arm, table.c.slice)
        .limit(limit)
    )
    return [_rollup(row) for row in connection.execute(query).mappings()]


def forget_hours(connection: sa.Connection, before_ms: int, most: int) -> int:
    """Delete hours that begin before a time, at most about so many; how many were."""
    starts = (
        sa.select(hours.c.start_ms)
        .where(hours.c.start_ms < before_ms)
        .order_by(hours.c.start_ms)
        .limit(most)
    )
    oldest = connection.execute(starts).scalars().all()
    if not oldest:
        return 0
    done = connection.execute(hours.delete().where(hours.c.start_ms <= oldest[-1]))
    return int(done.rowcount)


def _merge(connection: sa.Connection, table: sa.Table, sums: dict[RollupKey, RollupCounts]) -> None:
    keys = list(sums)
    columns = [table.c[name] for name in RollupKey._fields]
    for start in range(0, len(keys), BATCH):
        part = {key: sums[key] for key in keys[start : start + BATCH]}
        query = sa.select(table).where(sa.tuple_(*columns).in_(list(part)))
        for row in connection.execute(query).mappings():
            found = _rollup(row)
            found.counts.merge(part[found.key])
            part[found.key] = found.counts
        rows = [
            {
                **key._asdict(),
                **{name: getattr(counts, name) for name in FIGURES},
                **{name: getattr(counts, name).tobytes() for name in PACKED},
            }
            for key, counts in part.items()
        ]
        bulk.put(connection, table, rows)


def _rollup(row: sa.RowMapping) -> Rollup:
    counts = RollupCounts(**{name: row[name] for name in FIGURES})
    for name in PACKED:
        setattr(counts, name, np.frombuffer(row[name] or b"", dtype=np.int64))
    return Rollup(RollupKey(**{name: row[name] for name in RollupKey._fields}), counts)


def _sum(one: Int64, other: Int64) -> Int64:
    if len(one) < len(other):
        one, other = other, one
    if not len(other):
        return one
    total = one.copy()
    total[: len(other)] += other
    return total
