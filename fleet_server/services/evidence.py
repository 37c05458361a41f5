"""Gathers what a judgement looks at: the stage's counts, and what became of each order."""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from edge_core.messages.telemetry import Arm
from fleet_server.domain.cohort import Role
from fleet_server.domain.evidence import METHOD, Baseline, Cell, Evidence, Member
from fleet_server.domain.plan import Plan, StageKind
from fleet_server.domain.rollout import known
from fleet_server.storage import devices, journal, rollouts, windows
from fleet_server.storage.devices import Desired, Device, StoredRefusal
from fleet_server.storage.rollouts import StoredRollout
from fleet_server.storage.windows import CellCounts, CellKey

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
        cells=_cells(
            windows.cells_of(connection, row.rollout, row.stage),
            row,
            kind,
            {member.device for member in members if member.role == "candidate"},
        ),
        baselines=_baselines(connection, row),
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
    now_ms: int,
    heard_since_ms: int,
) -> list[Member]:
    """What became of every device's order in the present stage.

    None is silent for a time in which the server could not have heard it.
    """
    roles = rollouts.roles(connection, row.rollout, row.stage)
    wanted = devices.desired_of(connection)
    refusals = {r.device: r for r in devices.every_refusal(connection) if r.digest == row.digest}
    latest_ms = now_ms - round(plan.device_timeout_seconds * 1000)
    return [
        Member(
            device=device.device,
            role=msgspec.convert(roles[device.device], Role),
            confirmed=settled(device, wanted.get(device.device)),
            refused=_refused(device, row, wanted.get(device.device), refusals.get(device.device)),
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
    device: Device, row: StoredRollout, wish: Desired | None, refusal: StoredRefusal | None
) -> bool:
    """Whether it would not install the candidate for this rollout, or recovered from it.

    On the way back, whether it cannot go back. The device's own clock is not compared with ours:
    it has answered the order that stands, and says that this order failed.
    """
    if wish is None:
        return False
    failed = device.desired_revision == wish.revision and device.update_state == "failed"
    if known(row.state) == "rolling_back":
        return failed
    if row.digest not in (wish.active, wish.shadow):
        return False
    return failed and (refusal is not None or device.active != wish.active)


def _cells(
    found: dict[CellKey, CellCounts],
    row: StoredRollout,
    kind: StageKind,
    candidates: set[str],
) -> list[Cell]:
    """Cells whose release is the one that its arm stands for in this kind of stage.

    Labels of an earlier stage come late and are left out: there, the arm ``shadow`` was another
    release. A baseline answers in the place of the release that the device should run.
    """
    release_of: dict[str, str | None] = {
        "candidate": row.digest,
        "shadow": row.digest if kind == "shadow" else row.incumbent,
        "control": row.incumbent,
        "incumbent": row.incumbent,
    }

    def stands_for(key: CellKey) -> str | None:
        if key.arm == "fallback":
            return row.digest if key.device in candidates else row.incumbent
        return release_of.get(key.arm, "")

    return [
        Cell(
            device=key.device,
            arm=msgspec.convert(key.arm, Arm),
            slice=key.slice,
            rows=counts.rows,
            errors=counts.errors,
            right=counts.right,
            wrong=counts.wrong,
            latency=counts.latency,
            both_right=counts.both_right,
            only_active_right=counts.only_active_right,
            only_shadow_right=counts.only_shadow_right,
            both_wrong=counts.both_wrong,
            scored=counts.scored,
            unusual=counts.unusual,
        )
        for key, counts in sorted(found.items())
        if key.digest == stands_for(key)
    ]


def _baselines(connection: sa.Connection, row: StoredRollout) -> list[Baseline]:
    """What the incumbent did on each device before the stage, whoever watched it then."""
    if row.incumbent is None:
        return []
    sums: dict[tuple[str, str], list[int]] = {}
    for key, counts in windows.cells_of_release(connection, row.incumbent).items():
        if key.arm in ("incumbent", "control") and (key.rollout, key.stage) != (
            row.rollout,
            row.stage,
        ):
            entry = sums.setdefault((key.device, key.slice), [0, 0])
            entry[0] += counts.right
            entry[1] += counts.wrong
    return [
        Baseline(device=device, slice=slice_, right=right, wrong=wrong)
        for (device, slice_), (right, wrong) in sorted(sums.items())
    ]
