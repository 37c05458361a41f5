"""Open drifts, and what is done about them."""

from fleet_client.transport import Calls, Json, part


class DriftCalls(Calls):
    """Open drifts, and what is done about them."""

    def drifts(self) -> list[Json]:
        """List drifts that have not ended, with what was done about them."""
        return self._items("drift")

    def respond_to_drift(
        self,
        model: str,
        action: str | None = None,
        reason: str = "",
        *,
        for_seconds: float | None = None,
    ) -> Json:
        """Do something about a model's drift.

        Args:
            model: its name.
            action: ``retrain``, ``rethink``, ``fix-source``, ``fallback`` or ``usual``; none: what
                is suggested.
            reason: kept beside it.
            for_seconds: when a fallback ends by itself; none: when the drift ends.
        """
        body = {"action": action, "reason": reason, "for_seconds": for_seconds}
        return self._post(f"drift/{part(model)}/responses", body)

    def drift_policies(self) -> list[Json]:
        """List models whose devices fall back by themselves in a drift."""
        return self._items("drift/policies")

    def set_drift_policy(self, model: str, fallback: list[str]) -> Json:
        """Let a model's devices fall back by themselves in drifts of these kinds."""
        return self._put(f"drift/policies/{part(model)}", {"fallback": fallback})

    def drop_drift_policy(self, model: str) -> None:
        """Let a model's devices wait for a person."""
        self._delete(f"drift/policies/{part(model)}")
