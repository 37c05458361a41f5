"""Gathers what a judgement looks at: the stage's counts, and what became of each order."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from fleet_server.domain.cohort import Role
from fleet_server.domain.columns import COUNTS
from fleet_server.domain.evidence import METHOD, Baseline, Evidence, Member
from fleet_server.domain.packed_cells import PackedCells
from fleet_server.domain.plan import Plan, StageKind
from fleet_server.domain.rollout import known
from fleet_server.services.whole_fleet import WholeFleet
from fleet_server.storage import journal, refusals, windows
from fleet_server.storage.desired_states import Desired
from fleet_server.storage.devices import Device
from fleet_server.storage.refusals import StoredRefusal
from fleet_server.storage.rollouts import StoredRollout
from fleet_server.storage.windows import CELL_COLUMNS

DRIFT = "drift"
SETTLED = ("committed", "idle")
"""Update states in which a device that runs what it should is past its probation."""


def gather(
    connection: sa.Connection,
    row: StoredRollout,
    kind: StageKind,
    members: Sequence[Member],
    fleet: Sequence[Device],
    declared: dict[str, list[str]],
    now_ms: int,
    *,
    noisy: bool,
) -> Evidence:
    """Everything that one judgement of a rollout's present stage looks at."""
    present = {
        f"{name}={device.slices[name]}"
        for device in fleet
        for name, values in declared.items()
        if device.slices.get(name) in values
    }
    return Evidence(
        method=METHOD,
        packed=_cells(
            connection,
            row,
            kind,
            {member.device for member in members if member.role == "candidate"},
        ),
        # A shadow stage has no control whose rows could be held against those of before.
        baselines=[] if kind == "shadow" else _baselines(connection, row),
        members=list(members),
        slices=sorted(present),
        elapsed_seconds=(now_ms - row.stage_started_ms) / 1000,
        has_incumbent=row.incumbent is not None,
        noisy=noisy,
        drifting=any(
            alert.detail.get("model") == row.model
            for alert in journal.open_alerts(connection, DRIFT)
        ),
    )


def members_of(
    connection: sa.Connection,
    row: StoredRollout,
    plan: Plan,
    fleet: Sequence[Device],
    whole: WholeFleet,
    now_ms: int,
    heard_since_ms: int,
) -> list[Member]:
    """What became of every device's order in the present stage.

    None is silent for a time in which the server could not have heard it.
    """
    roles = whole.roles(connection, row.rollout, row.stage)
    wanted = whole.desired(connection)
    refused = refusals.of_digest(connection, row.digest)
    latest_ms = now_ms - round(plan.device_timeout_seconds * 1000)
    return [
        Member(
            device=device.device,
            role=cast(Role, roles[device.device]),
            confirmed=settled(device, wanted.get(device.device)),
            refused=_refused(
                device,
                row,
                wanted.get(device.device),
                refused.get(device.device),
                plan.attempts,
            ),
            silent=max(device.last_seen_ms, heard_since_ms) < latest_ms,
        )
        for device in fleet
        if device.device in roles
    ]


def settled(device: Device, wish: Desired | None) -> bool:
    """Whether a device reports that it runs what is desired of it, past probation."""
    return (
        wish is not None
        and device.desired_revision == wish.revision
        and device.active == wish.active
        and device.shadow == wish.shadow
        and device.update_state in SETTLED
    )


def _refused(
    device: Device,
    row: StoredRollout,
    wish: Desired | None,
    refusal: StoredRefusal | None,
    attempts: int,
) -> bool:
    """Whether it would not install the candidate for this rollout, or recovered from it.

    On the way back, whether it cannot go back. The device's own clock is not compared with ours:
    it has answered the order that stands, and says that this order failed.
    """
    if wish is None or device.update_state != "failed":
        return False
    if device.desired_revision != wish.revision:
        return False
    if known(row.state) == "rolling_back":
        return True
    if row.digest not in (wish.active, wish.shadow):
        return False
    if device.trouble:
        return False  # a device without room, say, speaks of itself and not of the release
    given_up = wish.attempts >= attempts
    return refusal is not None or (given_up and device.active != wish.active)


def _cells(
    connection: sa.Connection, row: StoredRollout, kind: StageKind, candidates: set[str]
) -> PackedCells:
    """Cells whose release is the one that its arm stands for in this kind of stage.

    Labels of an earlier stage come late and are left out: there, the arm ``shadow`` was another
    release. A baseline answers in the place of the release that the device should run.
    """
    incumbent = row.incumbent or ""
    digest_of = (
        {"incumbent": incumbent, "shadow": row.digest}
        if kind == "shadow"
        else {"candidate": row.digest, "control": incumbent, "shadow": incumbent}
    )

    def cells(wanted: dict[str, str]) -> list[sa.Row[Any]]:
        return windows.cell_rows(connection, row.rollout, row.stage, wanted)

    ours, theirs = cells({"fallback": row.digest}), cells({"fallback": incumbent})
    found = [
        *cells(digest_of),
        *(cell for cell in ours if cell.device in candidates),
        *(cell for cell in theirs if cell.device not in candidates),
    ]
    values = list(zip(*found, strict=True)) or [()] * len(CELL_COLUMNS)
    columns: dict[str, Sequence[Any]] = dict(zip(CELL_COLUMNS, values, strict=True))
    return PackedCells.of(
        columns["device"],
        columns["slice"],
        columns["arm"],
        {name: columns[name] for name in COUNTS},
        _latency(columns["latency"]),
    )


def _latency(stored: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """Stored counts by bin, int64 [n, bins]; shorter ones are filled up."""
    size = max(map(len, stored), default=0)
    whole = b"".join(counts.ljust(size, b"\0") for counts in stored)
    return np.frombuffer(whole, "<i8").reshape(len(stored), size // 8).astype(np.int64)


def _baselines(connection: sa.Connection, row: StoredRollout) -> list[Baseline]:
    """What the incumbent did on each device before the stage, whoever watched it then."""
    if row.incumbent is None:
        return []
    arms = ("incumbent", "control")
    found = windows.outcomes_before(connection, row.incumbent, arms, row.rollout, row.stage)
    return [
        Baseline(device=device, slice=slice_, right=right, wrong=wrong)
        for device, slice_, right, wrong in found
    ]
