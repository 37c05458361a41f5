"""When one certificate authority may follow another without a device that is left behind. Pure."""

from typing import Literal

import msgspec

SETTLED_MS = 5_000
"""An answer may be so old that a device got just after the successor was made."""
MOST_NAMED = 5

Step = Literal["prepare", "switch", "retire"]
Phase = Literal["alone", "prepared", "switched"]

OUT_OF_ORDER: dict[tuple[Step, Phase], str] = {
    ("prepare", "switched"): "the authority before is still trusted: run 'serinus-server "
    "authority retire' first",
    ("switch", "alone"): "there is no successor: run 'serinus-server authority prepare' first",
    ("retire", "prepared"): "the successor does not sign yet: run 'serinus-server authority "
    "switch' first",
}
"""What cannot be done when; all else is done, or was done already."""
DONE: dict[Step, Phase] = {"prepare": "prepared", "switch": "switched", "retire": "alone"}
"""Where each step leads to."""


class Newest(msgspec.Struct, frozen=True, kw_only=True):
    """A device's newest certificate that is valid."""

    device: str
    issued_ms: int
    issuer: bytes
    """What names who has signed it."""


def newest(valid: list[Newest]) -> list[Newest]:
    """One of each device, out of all that are valid."""
    found: dict[str, Newest] = {}
    for one in valid:
        if one.device not in found or one.issued_ms > found[one.device].issued_ms:
            found[one.device] = one
    return list(found.values())


def has_learnt(device: Newest, made_ms: int) -> bool:
    """Whether a device got its certificate when the successor was trusted already."""
    return device.issued_ms >= made_ms + SETTLED_MS


def named(devices: list[str]) -> str:
    """How many they are, and who the first of them are."""
    first = ", ".join(sorted(devices)[:MOST_NAMED])
    more = ", ..." if len(devices) > MOST_NAMED else ""
    return f"{len(devices)} ({first}{more})"
