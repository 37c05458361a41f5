"""What the server wants of a device."""

import msgspec

from edge_core.messages.telemetry import Arm, Count, Name
from edge_core.release import ReleaseRef

DESIRED_VERSION = 1


class DesiredState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which releases a device should hold and in which role (retained).

    The server can only name releases; whether a device may run them is decided by the release
    repository's signatures. A device answers with the same ``revision`` in its reported state.
    """

    v: int = DESIRED_VERSION
    revision: Count
    issued_ms: int
    active: ReleaseRef | None
    shadow: ReleaseRef | None = None
    arm: Arm = "incumbent"
    """Label for the rows that ``active`` answers."""
    rollout: Name | None = None
