"""Queries on labelled rows by slice, over all devices."""

from typing import NamedTuple

import sqlalchemy as sa

from fleet_server.storage.tables import cells

SERVING = ("incumbent", "control", "candidate")
"""Arms whose rows a person or an application saw."""


class SliceSums(NamedTuple):
    """Labelled rows of devices that declare the same slices."""

    slices: str
    """``name=value,...``; empty where none is declared."""
    devices: int
    rows: int
    """Answers, labelled or not."""
    right: int
    wrong: int
    weighed_right: float
    """The same with each device's rows at their weight."""
    weighed_wrong: float


def of_release(
    connection: sa.Connection,
    digest: str,
    rows_per_observation: float = 1.0,
    device_correlation: float = 0.0,
) -> list[SliceSums]:
    """Sums of one release by what its devices declare.

    Weights are those of :func:`fleet_server.domain.fairness.weight`, by device; all 1 by default.
    """
    labelled = (sa.func.sum(cells.c.right) + sa.func.sum(cells.c.wrong)).label("labelled")
    by_device = (
        sa.select(
            cells.c.slice,
            sa.func.sum(cells.c.rows).label("rows"),
            sa.func.sum(cells.c.right).label("right"),
            sa.func.sum(cells.c.wrong).label("wrong"),
            labelled,
        )
        .where(cells.c.digest == digest, cells.c.arm.in_(SERVING))
        .group_by(cells.c.device, cells.c.slice)
        .subquery()
    )
    c = by_device.c
    more = sa.cast(c.labelled, sa.Float) / rows_per_observation - 1
    weight = 1 / (1 + sa.case((more > 0, more), else_=0.0) * device_correlation)
    query = (
        sa.select(
            c.slice,
            sa.func.count(),
            sa.func.sum(c.rows),
            sa.func.sum(c.right),
            sa.func.sum(c.wrong),
            sa.func.sum(c.right * weight),
            sa.func.sum(c.wrong * weight),
        )
        .group_by(c.slice)
        .order_by(c.slice)
    )
    return [
        SliceSums._make((row[0], *map(int, row[1:5]), *map(float, row[5:])))
        for row in connection.execute(query)
    ]
