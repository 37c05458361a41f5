"""Alerts, events and rejected messages."""

import time
from collections.abc import Iterator

from edge_core.errors import Unavailable
from fleet_client.transport import MOST, Calls, Json

AGAIN_SECONDS = 1.0


class JournalCalls(Calls):
    """Alerts, events and rejected messages."""

    def alerts(self, limit: int = MOST) -> list[Json]:
        """List open alerts, then closed ones."""
        return self._first("alerts", limit)

    def events(self, after: int = 0, limit: int = 200) -> list[Json]:
        """List so many events after a number, oldest first."""
        return self._items("events", after=after, limit=limit)

    def follow_events(self, after: int | None = None) -> Iterator[Json]:
        """Events as they happen, for ever, through restarts of the server; none is left out.

        ``after`` is the number of the last one that is known; none: from now on.
        """
        last = after
        while True:
            try:
                for number, event in self._events("events/stream", last):
                    last = number
                    yield event
            except Unavailable:
                if last is None:
                    raise
            time.sleep(AGAIN_SECONDS)

    def rejected(self, limit: int = MOST) -> list[Json]:
        """List messages that the server did not take in, counted by reason."""
        return self._first("rejected", limit)

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
