"""What an incident did, from what is stored: devices, rows, slices, and how long."""

from typing import Any

import msgspec
import sqlalchemy as sa

from fleet_server.storage import rollouts, windows
from fleet_server.storage.incidents import StoredIncident
from fleet_server.storage.rollouts import StoredRollout


class HurtSlice(msgspec.Struct, frozen=True, kw_only=True):
    """A slice on which the candidate looked worse."""

    slice: str
    difference: float
    rows: int
    e_worse: float


class Impact(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of an incident; those of a rollout are none for an incident that is about none."""

    seconds_to_detect: float
    """From when it began, as far as is known, to when it was opened."""
    seconds_to_mitigate: float | None
    """From when it was opened; none as long as it goes on."""
    release: str | None = None
    devices: int | None = None
    """That served the candidate."""
    rows: int | None = None
    """That the candidate answered."""
    errors: int | None = None
    hurt: list[HurtSlice] = []
    verdict: int | None = None
    """That decided; ``serinus verdict replay`` gives its figures again."""


def impact_of(connection: sa.Connection, row: StoredIncident, now_ms: int) -> Impact:
    """Compute them."""
    base = Impact(
        seconds_to_detect=max(0, row.opened_ms - row.began_ms) / 1000,
        seconds_to_mitigate=None
        if row.mitigated_ms is None
        else max(0, row.mitigated_ms - row.opened_ms) / 1000,
    )
    rollout = rollouts.one(connection, row.subject) if row.kind == "rollback" else None
    return base if rollout is None else _of_rollout(connection, rollout, base)


def _of_rollout(connection: sa.Connection, rollout: StoredRollout, base: Impact) -> Impact:
    served = windows.served_by(connection, rollout.rollout, rollout.digest)
    latest: dict[str, Any] = msgspec.json.decode(rollout.latest) if rollout.latest else {}
    hurt = [
        HurtSlice(
            slice=figure["slice"],
            difference=figure["estimate"],
            rows=figure["rows"],
            e_worse=figure["e_worse"],
        )
        for figure in latest.get("evidence", [])
        if figure["slice"] and figure["estimate"] is not None and figure["estimate"] < 0
    ]
    return msgspec.structs.replace(
        base,
        release=rollout.digest,
        devices=served.devices,
        rows=served.rows,
        errors=served.errors,
        hurt=sorted(hurt, key=lambda one: one.difference),
        verdict=rollout.decided_by,
    )
