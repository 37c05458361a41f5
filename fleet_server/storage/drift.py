"""Queries on merged drift periods and on what the detectors remember."""

import msgspec
import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from fleet_server.storage.tables import drift, noises, periods
from fleet_server.storage.upsert import insert

Int64 = npt.NDArray[np.int64]


class PeriodCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Channel counts of one arm, merged over the fleet and one drift period."""

    digest: str
    arm: str
    period: int
    rows: int
    counts: Int64


def add_to_period(
    connection: sa.Connection, digest: str, arm: str, period: int, rows: int, counts: Int64
) -> None:
    """Merge channel counts into a drift period."""
    query = sa.select(periods).where(
        periods.c.digest == digest, periods.c.arm == arm, periods.c.period == period
    )
    row = connection.execute(query).mappings().first()
    if row is not None:
        rows += row["rows"]
        counts = counts + np.frombuffer(row["counts"], dtype=np.int64)
    values = {"rows": rows, "counts": counts.tobytes()}
    connection.execute(
        insert(connection, periods)
        .values(digest=digest, arm=arm, period=period, **values)
        .on_conflict_do_update(index_elements=["digest", "arm", "period"], set_=values)
    )


def periods_between(connection: sa.Connection, after: int, before: int) -> list[PeriodCounts]:
    """Merged counts of the periods in (after, before), oldest first."""
    query = (
        sa.select(periods)
        .where(periods.c.period > after, periods.c.period < before)
        .order_by(periods.c.period)
    )
    return [
        PeriodCounts(
            digest=row["digest"],
            arm=row["arm"],
            period=row["period"],
            rows=row["rows"],
            counts=np.frombuffer(row["counts"], dtype=np.int64),
        )
        for row in connection.execute(query).mappings()
    ]


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


def drift_states(connection: sa.Connection) -> dict[str, tuple[bytes, int]]:
    """Digest -> (detector state, last period that it has seen)."""
    return {row.digest: (row.state, row.period) for row in connection.execute(sa.select(drift))}


def put_drift_state(connection: sa.Connection, digest: str, state: bytes, period: int) -> None:
    """Replace a detector's state."""
    values = {"state": state, "period": period}
    connection.execute(
        insert(connection, drift)
        .values(digest=digest, **values)
        .on_conflict_do_update(index_elements=["digest"], set_=values)
    )
