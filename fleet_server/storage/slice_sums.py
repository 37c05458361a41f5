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
    squares: int
    """Sum over devices of their squared numbers of labelled rows."""


def of_release(connection: sa.Connection, digest: str) -> list[SliceSums]:
    """Sums of one release by what its devices declare."""
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
    query = (
        sa.select(
            c.slice,
            sa.func.count(),
            sa.func.sum(c.rows),
            sa.func.sum(c.right),
            sa.func.sum(c.wrong),
            sa.func.sum(c.labelled * c.labelled),
        )
        .group_by(c.slice)
        .order_by(c.slice)
    )
    return [
        SliceSums(name, *(int(value or 0) for value in values))
        for name, *values in connection.execute(query)
    ]
