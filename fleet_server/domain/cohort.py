"""Which devices take which role: random, but the same for the same salt."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import msgspec

from fleet_server.domain.plan import Stage

Role = Literal["shadow", "candidate", "control", "none"]


class DeviceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What assignment has to know of a device."""

    device: str
    slices: dict[str, str] = {}


def assign(
    devices: Sequence[DeviceFacts], stage: Stage, *, salt: str, strata: Sequence[str]
) -> dict[str, Role]:
    """Draw each device's role for a stage.

    Within each stratum, devices stand in the order of a salted hash: candidates are taken from
    the front, so a larger share contains a smaller one, and as many controls follow them as
    there are candidates, where enough devices are left. Every stratum gives at least one
    candidate and keeps at least one control where it has two devices.
    """
    roles: dict[str, Role] = {}
    for members in _strata(devices, strata).values():
        ordered = sorted(members, key=lambda name: _rank(salt, name))
        count = max(1, math.floor(stage.share * len(ordered) + 0.5))
        if stage.kind == "shadow":
            roles |= {
                name: "shadow" if place < count else "none" for place, name in enumerate(ordered)
            }
            continue
        if stage.share < 1 and len(ordered) > 1:
            count = min(count, len(ordered) - 1)
        for place, name in enumerate(ordered):
            roles[name] = (
                "candidate" if place < count else "control" if place < 2 * count else "none"
            )
    return roles


def _strata(
    devices: Sequence[DeviceFacts], strata: Sequence[str]
) -> dict[tuple[str, ...], list[str]]:
    members: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for device in devices:
        members[tuple(device.slices.get(name, "") for name in strata)].append(device.device)
    return members


def _rank(salt: str, device: str) -> bytes:
    return hashlib.sha256(f"{salt}\0{device}".encode()).digest()
