"""What the server wants of a device."""

from typing import Annotated

import msgspec

from edge_core.messages.telemetry import Arm, Count
from edge_core.release import ReleaseRef

DESIRED_VERSION = 2
"""Version 2 can ask for the server's confirmation."""

Seconds = Annotated[float, msgspec.Meta(gt=0, le=30 * 86400)]


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
    rollout: str | None = None
    confirm_seconds: Seconds | None = None
    """How long a device that let ``active`` pass its trial waits for ``confirmed``, and then goes
    back. None: the device's own verdict is enough."""
    confirmed: bool = False
    """The server heard the device and its statistics since; sent with the same ``revision``."""


class DesiredState1(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A desired state as version 1 has it: the device's own verdict is enough."""

    v: int = 1
    revision: Count
    issued_ms: int
    active: ReleaseRef | None
    shadow: ReleaseRef | None = None
    arm: Arm = "incumbent"
    rollout: str | None = None

    @classmethod
    def of(cls, state: DesiredState) -> "DesiredState1":
        """For a device that knows no other version."""
        return cls(**{name: getattr(state, name) for name in cls.__struct_fields__ if name != "v"})

    def brought_up(self) -> DesiredState:
        """As the current version has it."""
        return DesiredState(**msgspec.structs.asdict(self) | {"v": DESIRED_VERSION})
