"""Releases and production."""

from fleet_client.transport import Calls, Json, part


class ReleaseCalls(Calls):
    """Releases and production."""

    def releases(self) -> list[Json]:
        """List every release that is or was approved."""
        return self._items("releases")

    def production(self, at_ms: int | None = None) -> list[Json]:
        """Tell what is in production, since when and built from what; or what was at a moment."""
        return self._items("production", **({} if at_ms is None else {"at_ms": at_ms}))

    def production_history(self, model: str = "") -> list[Json]:
        """List what was ever in production, newest first."""
        return self._items("production/history", **({"model": model} if model else {}))

    def lineage(self, release: str) -> Json:
        """Show a release's ancestors, descendants, and what it was built from."""
        return self._get(f"releases/{part(release)}/lineage")

    def diff(self, before: str, after: str) -> Json:
        """Tell what one release has otherwise than another."""
        return self._get("releases/diff", before=before, after=after)
