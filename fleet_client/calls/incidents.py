"""Incidents."""

from fleet_client.transport import MOST, Calls, Json


class IncidentCalls(Calls):
    """Incidents."""

    def incidents(self, limit: int = MOST) -> list[Json]:
        """List incidents: those that are not resolved first."""
        return self._first("incidents", limit)

    def incident(self, number: int) -> Json:
        """Show an incident with its timeline and what it did."""
        return self._get(f"incidents/{number}")

    def note_incident(self, number: int, text: str) -> Json:
        """Write a line into an incident's timeline."""
        return self._post(f"incidents/{number}/notes", {"text": text})

    def assign_incident(self, number: int, owner: str) -> Json:
        """Say who looks after an incident."""
        return self._put(f"incidents/{number}/owner", {"owner": owner})

    def resolve_incident(self, number: int, cause: str) -> Json:
        """End an incident with its cause."""
        return self._post(f"incidents/{number}/resolve", {"cause": cause})

    def postmortem(self, number: int) -> str:
        """The whole of an incident as Markdown."""
        return self._bytes(f"incidents/{number}/postmortem").decode()
