"""What the fleet says to this device: the only reader of its messages. No transport."""

import logging
from collections.abc import Callable

from edge_core.errors import InvalidMessage
from edge_core.messages import codec, topics
from edge_core.messages.deployment import DesiredState

log = logging.getLogger(__name__)


class Inbox:
    """Takes messages in, and counts those that are none."""

    def __init__(
        self,
        device: str,
        *,
        want: Callable[[DesiredState], None],
        command: Callable[[bytes], None],
    ) -> None:
        """Take messages for a device.

        Args:
            device: its name.
            want: gets each wish of the server.
            command: gets each command, and raises ``InvalidMessage`` where it is none.
        """
        self._device = device
        self._want = want
        self._command = command
        self.refused = 0
        """Messages that were dropped: malformed, too large, or on another topic."""

    def take(self, topic: str, payload: bytes) -> None:
        """Follow a message, or count it as refused."""
        try:
            match topics.parse_down(topic, self._device):
                case "desired":
                    self._want(codec.decode(DesiredState, payload))
                case "command":
                    self._command(payload)
        except InvalidMessage as error:
            self.refused += 1
            log.warning("dropped a message: %s", error)
