"""Alerts, events and rejected messages."""

from fleet_client.transport import Calls, Json


class JournalCalls(Calls):
    """Alerts, events and rejected messages."""

    def alerts(self) -> list[Json]:
        """List open alerts, then closed ones."""
        return self._items("alerts")

    def events(self, after: int = 0) -> list[Json]:
        """List events after a number, oldest first."""
        return self._items("events", after=after)

    def rejected(self) -> list[Json]:
        """List messages that the server did not take in, counted by reason."""
        return self._items("rejected")
