"""Every MQTT topic, built and parsed.

``serinus/v1/up/<device>/<kind>`` and ``serinus/v1/down/<device>/<kind>``: the device's name is
one level, so that a broker's pattern ACL can confine each device to its own.
"""

import re
from typing import Literal, NamedTuple, get_args

from edge_core.errors import InvalidMessage

PREFIX = "serinus/v1"
DEVICE_PATTERN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")

UpKind = Literal["state", "stats", "samples", "online"]
DownKind = Literal["desired", "command"]


class UpTopic(NamedTuple):
    """A parsed upward topic."""

    device: str
    kind: UpKind


def up(device: str, kind: UpKind) -> str:
    """Topic on which ``device`` publishes ``kind``."""
    return f"{PREFIX}/up/{_checked(device)}/{kind}"


def down(device: str, kind: DownKind) -> str:
    """Topic on which the server addresses ``device``."""
    return f"{PREFIX}/down/{_checked(device)}/{kind}"


def every_up() -> str:
    """Subscription filter of the server."""
    return f"{PREFIX}/up/+/+"


def parse_up(topic: str) -> UpTopic:
    """Parse an upward topic; raise :class:`InvalidMessage` for any other."""
    head, _, rest = topic.partition(f"{PREFIX}/up/")
    device, _, kind = rest.partition("/")
    if head or not DEVICE_PATTERN.match(device) or kind not in get_args(UpKind):
        raise InvalidMessage(f"topic {topic[:128]!r} is not one that a device publishes on")
    return UpTopic(device, kind)  # type: ignore[arg-type]  # narrowed by the membership test


def parse_down(topic: str, device: str) -> DownKind:
    """What a message to this device is; raise :class:`InvalidMessage` for any other topic."""
    for kind in get_args(DownKind):
        if topic == down(device, kind):
            return kind  # type: ignore[no-any-return]  # one of the literal's
    raise InvalidMessage(f"topic {topic[:128]!r} is not one on which {device} is addressed")


def _checked(device: str) -> str:
    if not DEVICE_PATTERN.match(device):
        raise ValueError(f"device name {device!r} does not match {DEVICE_PATTERN.pattern}")
    return device
