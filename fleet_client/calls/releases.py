"""Releases, production, cost and consumers."""

from fleet_client.transport import Calls, Json


class ReleaseCalls(Calls):
    """Releases, production, cost and consumers."""

    def releases(self) -> list[Json]:
        """List every release that is or was approved."""
        return self._items("releases")

    def production(self) -> list[Json]:
        """Tell what is in production, since when and built from what."""
        return self._items("production")

    def cost(self) -> list[Json]:
        """List what predictions of each release cost."""
        return self._items("cost")

    def consumers(self) -> list[Json]:
        """List who asks which model, and how much."""
        return self._items("consumers")
