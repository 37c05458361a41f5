"""Requests to train models again, and policies."""

from typing import Any

from fleet_client.transport import MOST, Calls, Json, part


class RetrainingCalls(Calls):
    """Requests to train models again, and policies."""

    def retrain_requests(self, limit: int = MOST) -> list[Json]:
        """List requests, newest first."""
        return self._first("retraining/requests", limit)

    def retrain_request(self, number: int) -> Json:
        """Show one request with the gates that refused it."""
        return self._get(f"retraining/requests/{number}")

    def retrain(
        self, model: str, reason: str = "", *, automation: str = "build", alert: int | None = None
    ) -> Json:
        """Ask that a model be trained again; ``automation`` is ``build`` or ``rollout``."""
        body = {"model": model, "reason": reason, "automation": automation, "alert": alert}
        return self._post("retraining/requests", body)

    def approve_retraining(self, number: int) -> Json:
        """Let a worker take a suggested request."""
        return self._post(f"retraining/requests/{number}/approve", None)

    def cancel_retraining(self, number: int, reason: str = "") -> Json:
        """End a request."""
        return self._post(f"retraining/requests/{number}/cancel", {"reason": reason})

    def claim_retraining(self, worker: str, models: list[str]) -> Json | None:
        """Take the oldest open request; none where there is none."""
        answer = self._post("retraining/claims", {"worker": worker, "models": models})
        claimed: Json | None = answer["claimed"]
        return claimed

    def renew_retraining(self, number: int, lease: str, progress: str = "") -> Json:
        """Hold a request for longer."""
        body = {"lease": lease, "progress": progress}
        return self._post(f"retraining/requests/{number}/renew", body)

    def finish_retraining(self, number: int, lease: str, state: str, **result: Any) -> Json:
        """Say what came of a request: ``outcome``, ``release``, ``digest``, ``gates``."""
        body = {"lease": lease, "state": state, **result}
        return self._post(f"retraining/requests/{number}/result", body)

    def retrain_policies(self) -> list[Json]:
        """List when models ask for training by themselves."""
        return self._items("retraining/policies")

    def set_retrain_policy(self, model: str, **policy: Any) -> Json:
        """Set ``every_days``, ``on_drift``, ``cooldown_days`` and ``automation`` of a model."""
        return self._put(f"retraining/policies/{part(model)}", policy)

    def drop_retrain_policy(self, model: str) -> None:
        """Let a model ask for nothing by itself."""
        self._delete(f"retraining/policies/{part(model)}")
