"""What an operator orders a device to do at once."""

from typing import Annotated

import msgspec

from edge_core.messages.telemetry import Name, Text

COMMAND_VERSION = 1
LONGEST_VALID_MS = 7 * 86_400_000
"""A command that waited longer for its device is not what its operator meant any more."""

Moment = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class FallbackOn(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="fallback_on"
):
    """Let a model's baseline answer from the next request on."""

    model: Name
    reason: Text = ""
    until_ms: Moment | None = None
    """When the model answers again by itself, UTC; none: when another command says so."""


class FallbackOff(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="fallback_off"
):
    """Let a model answer again."""

    model: Name
    reason: Text = ""


Action = FallbackOn | FallbackOff


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One order (not retained; sent again until the device's reported state names its outcome).

    A device carries each out once, by its id, and only until it expires by the device's clock. Of
    two for the same model, the one that was issued later counts, in whatever order they come.
    """

    v: int = COMMAND_VERSION
    id: Name
    issued_ms: Moment
    expires_ms: Moment
    action: Action

    def __post_init__(self) -> None:
        if not self.issued_ms < self.expires_ms <= self.issued_ms + LONGEST_VALID_MS:
            raise ValueError("a command expires after it was issued, within 7 days")
