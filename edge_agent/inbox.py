"""What the fleet says to this device: the only reader of its messages. No transport."""

import logging
from collections.abc import Callable

from edge_core.errors import InvalidMessage
from edge_core.messages import codec, topics
from edge_core.messages.deployment import DesiredState

log = logging.getLogger(__name__)


class Inbox:
    """Takes messages in, and counts those that are none."""

    def __init__(self, device: str, want: Callable[[DesiredState], None]) -> None:
        """Take messages for a device; ``want`` gets each wish of the server."""
        self._topic = topics.down(device, "desired")
        self._want = want
        self.refused = 0
        """Messages that were dropped: malformed, too large, or on another topic."""

    def take(self, topic: str, payload: bytes) -> None:
        """Follow a message, or count it as refused."""
        try:
            if topic != self._topic:
                raise InvalidMessage(f"nothing for this device comes on {topic[:128]!r}")
            wish = codec.decode(DesiredState, payload)
        except InvalidMessage as error:
            self.refused += 1
            log.warning("dropped a message on %s: %s", self._topic, error)
        else:
            self._want(wish)
