"""Since when the server can hear its devices: what it missed is held against none of them."""

from fleet_server.services.clock import Clock


class Listening:
    """Told by whoever speaks to the broker; a server that just began has heard nothing yet."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock()
        self._deaf = False

    def began(self) -> None:
        """The broker was reached, for the first time or again."""
        self._since = self._clock()
        self._deaf = False

    def ended(self) -> None:
        """The broker went away."""
        self._deaf = True

    def since_ms(self) -> int:
        """UTC; now while nothing can be heard."""
        return self._clock() if self._deaf else self._since
