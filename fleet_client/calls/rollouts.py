"""Rollouts and verdicts."""

from fleet_client.transport import Calls, Json, part


class RolloutCalls(Calls):
    """Rollouts and verdicts."""

    def rollouts(self) -> list[Json]:
        """List every rollout, newest first."""
        return self._items("rollouts")

    def rollout(self, rollout: str) -> Json:
        """Show one rollout with its stages and newest verdict."""
        return self._get(f"rollouts/{part(rollout)}")

    def start_rollout(self, release: str, plan: Json | None = None) -> Json:
        """Start a rollout of ``model@version``; ``plan`` holds what differs from the default."""
        return self._post("rollouts", {"release": release, "plan": plan})

    def pause(self, rollout: str, reason: str = "") -> Json:
        """Hold a rollout where it is."""
        return self._post(f"rollouts/{part(rollout)}/pause", {"reason": reason})

    def resume(self, rollout: str, reason: str = "") -> Json:
        """Go on with a paused rollout."""
        return self._post(f"rollouts/{part(rollout)}/resume", {"reason": reason})

    def roll_back(self, rollout: str, reason: str = "") -> Json:
        """Put every device of a rollout back on the release it had before."""
        return self._post(f"rollouts/{part(rollout)}/rollback", {"reason": reason})

    def verdicts(self, rollout: str) -> list[Json]:
        """List the stored verdicts of a rollout, oldest first."""
        return self._items(f"verdicts/{part(rollout)}")

    def replay(self, verdict: int) -> Json:
        """Judge a stored verdict's inputs again."""
        return self._post(f"verdicts/{verdict}/replay", None)
