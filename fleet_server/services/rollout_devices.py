"""The devices of a rollout: what each should do, what it does, and why it waits."""

import msgspec
import sqlalchemy as sa

from fleet_server.domain.rollout import FINISHED
from fleet_server.services import evidence, stages
from fleet_server.services.stages import Course
from fleet_server.storage import desired_states, devices, rollouts
from fleet_server.storage.desired_states import Desired
from fleet_server.storage.devices import Device


class RolloutDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One device."""

    device: str
    role: str
    site: str
    settled: bool
    """It runs what it should, past its trial."""
    update: str | None
    online: bool
    last_seen_ms: int
    attempts: int
    waits_for: str
    """Empty where it waits for nothing."""


def of(connection: sa.Connection, course: Course, after: str, limit: int) -> list[RolloutDevice]:
    """Devices of the present stage whose names come after one, in order."""
    roles = rollouts.roles(connection, course.row.rollout, course.row.stage)
    held = {} if course.state in FINISHED else stages.waiting(connection, course, course.now_ms)
    names = sorted(name for name in roles if name > after)[:limit]
    known = {device.device: device for device in devices.named(connection, names)}
    wanted = desired_states.named(connection, names)
    return [
        _view(course, known[name], roles[name], wanted.get(name), held.get(name, ""))
        for name in names
        if name in known
    ]


def _view(
    course: Course, device: Device, role: str, wish: Desired | None, held: str
) -> RolloutDevice:
    settled = evidence.settled(device, wish)
    return RolloutDevice(
        device=device.device,
        role=role,
        site=device.site,
        settled=settled,
        update=device.update_state,
        online=device.online,
        last_seen_ms=device.last_seen_ms,
        attempts=wish.attempts if wish else 0,
        waits_for=held or ("" if settled or wish is None else _open(course, device, wish)),
    )


def _open(course: Course, device: Device, wish: Desired) -> str:
    """Why an order that was given is not carried out yet."""
    if device.trouble:
        return f"cannot take it now: {device.trouble}"
    if device.desired_revision == wish.revision and device.update_state == "failed":
        asked = f"asked {wish.attempts} of {course.plan.attempts} times"
        return f"{asked}: {device.reason}"
    if not device.online:
        return "offline: the broker keeps its order"
    if device.desired_revision != wish.revision:
        return "has not answered its order yet"
    return f"is {device.update_state or 'at work'}"
