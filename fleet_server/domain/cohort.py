"""Which devices take which role: random, but the same for the same salt."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import msgspec

from fleet_server.domain.plan import Stage

Role = Literal["shadow", "candidate", "control", "holdout", "none"]


class DeviceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What assignment has to know of a device."""

    device: str
    slices: dict[str, str] = {}


def assign(
    devices: Sequence[DeviceFacts],
    stage: Stage,
    *,
    salt: str,
    strata: Sequence[str],
    holdout: float = 0.0,
) -> dict[str, Role]:
    """Draw each device's role for a stage.

    Within each stratum, devices stand in the order of a salted hash: candidates are taken from
    the front, so a larger share contains a smaller one, and as many controls follow them as
    there are candidates, where enough devices are left. Every stratum gives at least one
    candidate and keeps at least one control where it has two devices. Devices that are held out
    are drawn by a hash of their own, the same in every stage.
    """
    roles: dict[str, Role] = {}
    groups = _strata(devices, strata)
    for members in groups.values():
        held = _held_out(members, salt, holdout)
        roles |= dict.fromkeys(held, "holdout")
        drawn = sorted(set(members) - set(held), key=lambda name: _rank(salt, name))
        if drawn:
            roles |= _drawn(drawn, stage, _count(stage, len(drawn), len(members), len(devices)))
    return roles


def _held_out(members: Sequence[str], salt: str, share: float) -> list[str]:
    ordered = sorted(members, key=lambda name: _rank(f"{salt} holdout", name))
    return ordered[: math.floor(share * len(members) + 0.5)]


def _count(stage: Stage, drawn: int, members: int, fleet: int) -> int:
    """Candidates of one stratum, at least one."""
    if stage.share is not None:
        return max(1, math.floor(stage.share * drawn + 0.5))
    wanted = (stage.devices or 1) * members / fleet
    return min(drawn, max(1, math.floor(wanted + 0.5)))


def _drawn(ordered: Sequence[str], stage: Stage, count: int) -> dict[str, Role]:
    """Roles of one stratum's devices in the order of their hash."""
    if stage.kind == "shadow":
        return {name: "shadow" if place < count else "none" for place, name in enumerate(ordered)}
    if stage.share != 1 and len(ordered) > 1:
        count = min(count, len(ordered) - 1)
    return {
        name: "candidate" if place < count else "control" if place < 2 * count else "none"
        for place, name in enumerate(ordered)
    }


def _strata(
    devices: Sequence[DeviceFacts], strata: Sequence[str]
) -> dict[tuple[str, ...], list[str]]:
    members: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for device in devices:
        members[tuple(device.slices.get(name, "") for name in strata)].append(device.device)
    return members


def _rank(salt: str, device: str) -> bytes:
    return hashlib.sha256(f"{salt}\0{device}".encode()).digest()
