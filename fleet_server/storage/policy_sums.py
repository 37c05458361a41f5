"""Queries on labelled rows inside and outside of a model's holdout."""

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from fleet_server.domain.labelling import Policy
from fleet_server.storage import rollouts
from fleet_server.storage.slice_sums import SERVING
from fleet_server.storage.tables import cells


class PolicySums(NamedTuple):
    """Rows of the devices of one policy."""

    devices: int
    rows: int
    right: int
    wrong: int


def of_model(
    connection: sa.Connection, model: str, digests: Sequence[str]
) -> dict[Policy, PolicySums]:
    """Sums by policy, of the devices that the newest rollout holds out and of all others."""
    held = cells.c.device.in_(rollouts.held_out(model))
    policy = sa.case((held, "holdout"), else_="policy").label("policy")
    names = ("device", "rows", "right", "wrong")
    c = (  # PostgreSQL takes two texts of one expression for two expressions
        sa.select(policy, *(cells.c[name] for name in names))
        .where(cells.c.digest.in_(digests), cells.c.arm.in_(SERVING))
        .subquery()
        .c
    )
    query = sa.select(
        c.policy,
        sa.func.count(c.device.distinct()),
        sa.func.sum(c.rows),
        sa.func.sum(c.right),
        sa.func.sum(c.wrong),
    ).group_by(c.policy)
    found: dict[Policy, PolicySums] = {}
    for name, *values in connection.execute(query):
        found["holdout" if name == "holdout" else "policy"] = PolicySums(
            *(int(value or 0) for value in values)
        )
    return found
