"""Queries on merged drift periods and on what the detectors remember."""

from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from fleet_server.storage import bulk
from fleet_server.storage.tables import drift, noises, periods
from fleet_server.storage.upsert import insert

Int64 = npt.NDArray[np.int64]
BATCH = 50


class PeriodKey(NamedTuple):
    """What is merged over the fleet."""

    digest: str
    arm: str
    period: int
    slice: str
    """``name=value,...`` in the order of names."""


class PeriodCounts(msgspec.Struct, kw_only=True):
    """Channel counts of one arm and slice in one drift period, with what its labels said."""

    rows: int = 0
    right: int = 0
    wrong: int = 0
    counts: Int64

    def merge(self, other: "PeriodCounts") -> None:
        """Add another's."""
        self.rows += other.rows
        self.right += other.right
        self.wrong += other.wrong
        self.counts = self.counts + other.counts


class StoredState(NamedTuple):
    """What a detector remembers."""

    state: bytes
    season: bytes
    period: int
    """Last one that it has seen."""


def add_to_periods(connection: sa.Connection, sums: dict[PeriodKey, PeriodCounts]) -> None:
    """Merge channel counts into drift periods."""
    keys = list(sums)
    columns = [periods.c[name] for name in PeriodKey._fields]
    for start in range(0, len(keys), BATCH):
        part = {key: sums[key] for key in keys[start : start + BATCH]}
        query = sa.select(periods).where(sa.tuple_(*columns).in_(list(part)))
        for row in connection.execute(query).mappings():
            key, found = _period(row)
            part[key].merge(found)
        rows = [
            {
                **key._asdict(),
                "rows": counts.rows,
                "right": counts.right,
                "wrong": counts.wrong,
                "counts": counts.counts.tobytes(),
            }
            for key, counts in part.items()
        ]
        bulk.put(connection, periods, rows)


def periods_between(
    connection: sa.Connection, after: int, before: int
) -> list[tuple[PeriodKey, PeriodCounts]]:
    """Merged counts of the periods in (after, before), oldest first."""
    query = (
        sa.select(periods)
        .where(periods.c.period > after, periods.c.period < before)
        .order_by(periods.c.period)
    )
    return [_period(row) for row in connection.execute(query).mappings()]


def _period(row: sa.RowMapping) -> tuple[PeriodKey, PeriodCounts]:
    key = PeriodKey(**{name: row[name] for name in PeriodKey._fields})
    counts = PeriodCounts(
        rows=row["rows"],
        right=row["right"],
        wrong=row["wrong"],
        counts=np.frombuffer(row["counts"], dtype=np.int64),
    )
    return key, counts


def add_noise(connection: sa.Connection, digest: str, period: int, count: int) -> None:
    """Note windows whose counts carry noise."""
    connection.execute(
        insert(connection, noises)
        .values(digest=digest, period=period, windows=count)
        .on_conflict_do_update(
            index_elements=["digest", "period"], set_={"windows": noises.c.windows + count}
        )
    )


def noise_of(connection: sa.Connection, digest: str) -> dict[int, int]:
    """Period -> windows whose counts carry noise."""
    query = sa.select(noises.c.period, noises.c.windows).where(noises.c.digest == digest)
    return {row.period: row.windows for row in connection.execute(query)}


def forget_periods(connection: sa.Connection, before: int) -> None:
    """Drop periods that every detector has seen."""
    connection.execute(noises.delete().where(noises.c.period < before))
    connection.execute(periods.delete().where(periods.c.period < before))


def states(connection: sa.Connection) -> dict[str, StoredState]:
    """Digest -> what its detector remembers."""
    return {
        row.digest: StoredState(row.state, row.season or b"", row.period)
        for row in connection.execute(sa.select(drift))
    }


def put_state(
    connection: sa.Connection, digest: str, state: bytes, season: bytes | None, period: int
) -> None:
    """Replace what a detector remembers; its season only where one is given."""
    values: dict[str, object] = {"state": state, "period": period}
    if season is not None:
        values["season"] = season
    connection.execute(
        insert(connection, drift)
        .values(digest=digest, **values)
        .on_conflict_do_update(index_elements=["digest"], set_=values)
    )
