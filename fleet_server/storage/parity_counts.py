"""Queries on replayed samples: how many, and which features differ."""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from fleet_server.storage.rows import record
from fleet_server.storage.tables import (
    parity,
    parity_features,
    samples,
    unreplayed,
)
from fleet_server.storage.upsert import insert


class ParityCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Sampled predictions whose features were computed again here."""

    device: str
    digest: str
    compared: int
    mismatches: int
    detail: str


def new_sample(
    connection: sa.Connection, device: str, prediction: str, digest: str, keep: int
) -> bool:
    """Remember a sample, and only the last ``keep`` of the device; False where it is known."""
    newest = connection.execute(
        sa.select(sa.func.max(samples.c.number)).where(samples.c.device == device)
    ).scalar()
    number = (newest or 0) + 1
    done = connection.execute(
        insert(connection, samples)
        .values(device=device, prediction=prediction, digest=digest, number=number)
        .on_conflict_do_nothing()
    )
    if not done.rowcount:
        return False
    connection.execute(
        samples.delete().where(samples.c.device == device, samples.c.number <= number - keep)
    )
    return True


def add(connection: sa.Connection, device: str, digest: str, mismatch: bool, detail: str) -> None:
    """Count one sample that was computed again."""
    row = {
        "device": device,
        "digest": digest,
        "compared": 1,
        "mismatches": int(mismatch),
        "detail": detail,
    }
    update: dict[str, Any] = {
        "compared": parity.c.compared + 1,
        "mismatches": parity.c.mismatches + int(mismatch),
    }
    if mismatch:
        update["detail"] = detail
    connection.execute(
        insert(connection, parity)
        .values(row)
        .on_conflict_do_update(index_elements=["device", "digest"], set_=update)
    )


def add_unreplayed(connection: sa.Connection, device: str, digest: str) -> None:
    """Count one sample that cannot be computed again."""
    connection.execute(
        insert(connection, unreplayed)
        .values(device=device, digest=digest, samples=1)
        .on_conflict_do_update(
            index_elements=["device", "digest"], set_={"samples": unreplayed.c.samples + 1}
        )
    )


def not_replayed(connection: sa.Connection) -> dict[str, int]:
    """Digest -> samples that could not be computed again."""
    query = sa.select(unreplayed.c.digest, sa.func.sum(unreplayed.c.samples))
    rows = connection.execute(query.group_by(unreplayed.c.digest))
    return {digest: int(count) for digest, count in rows}


def add_mismatches(connection: sa.Connection, digest: str, features: Sequence[str]) -> None:
    """Count features of a release that one sample gave other values of."""
    if not features:
        return
    connection.execute(
        insert(connection, parity_features).on_conflict_do_update(
            index_elements=["digest", "feature"],
            set_={"mismatches": parity_features.c.mismatches + 1},
        ),
        [{"digest": digest, "feature": feature, "mismatches": 1} for feature in features],
    )


def mismatches(connection: sa.Connection) -> dict[str, dict[str, int]]:
    """Mismatches by release and feature, the most first."""
    order = (parity_features.c.mismatches.desc(), parity_features.c.feature)
    found: dict[str, dict[str, int]] = {}
    for row in connection.execute(sa.select(parity_features).order_by(*order)):
        found.setdefault(row.digest, {})[row.feature] = row.mismatches
    return found


def every(connection: sa.Connection) -> list[ParityCounts]:
    """Parity counts of every device and release."""
    rows = connection.execute(sa.select(parity)).mappings()
    return [record(row, ParityCounts) for row in rows]
