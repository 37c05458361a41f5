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

    def audit(
        self, after: int = 0, limit: int = 1000, *, subject: str = "", actor: str = ""
    ) -> list[Json]:
        """List decisions with a larger number, oldest first; of one subject or actor."""
        named = {"subject": subject, "actor": actor}
        query = {name: value for name, value in named.items() if value}
        return self._items("audit", after=after, limit=limit, **query)

    def verify_audit(self, head: str = "") -> Json:
        """Walk the chain of decisions; ``head`` is one that was kept elsewhere."""
        return self._get("audit/verify", **({"head": head} if head else {}))
