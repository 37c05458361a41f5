"""Rollouts and verdicts."""

from collections.abc import Iterator

from fleet_client.transport import MOST, Calls, Json, part


class RolloutCalls(Calls):
    """Rollouts and verdicts."""

    def rollouts(self, limit: int = MOST) -> list[Json]:
        """List rollouts, newest first."""
        return self._first("rollouts", limit)

    def rollout(self, rollout: str) -> Json:
        """Show one rollout with its stages and newest verdict."""
        return self._get(f"rollouts/{part(rollout)}")

    def start_rollout(
        self, release: str, plan: Json | None = None, *, supersede: bool = False
    ) -> Json:
        """Start a rollout of ``model@version``; ``plan`` holds what differs from the default.

        ``supersede`` lets it take over from a rollout of the model that has not ended.
        """
        body = {"release": release, "plan": plan, "supersede": supersede}
        return self._post("rollouts", body)

    def check_plan(self, release: str, plan: Json | None = None) -> Json:
        """Say what a plan would do on the present fleet; nothing is started."""
        return self._post("rollout-plans/check", {"release": release, "plan": plan})

    def default_plan(self) -> Json:
        """Show the plan that counts where nothing else is said."""
        return self._get("rollout-plans/default")

    def abort(self, rollout: str, reason: str = "") -> Json:
        """End a rollout where it is: devices that run the candidate keep it."""
        return self._post(f"rollouts/{part(rollout)}/abort", {"reason": reason})

    def approve(self, rollout: str, note: str = "") -> Json:
        """Approve what follows the present stage; whoever started it may not."""
        return self._post(f"rollouts/{part(rollout)}/approvals", {"reason": note})

    def release_holdout(self, rollout: str) -> Json:
        """Let the held-out devices of a promoted rollout follow it."""
        return self._post(f"rollouts/{part(rollout)}/release-holdout", None)

    def rollout_devices(self, rollout: str) -> Iterator[Json]:
        """List devices of a rollout by name, and why they wait."""
        return self._pages(f"rollouts/{part(rollout)}/devices")

    def pause(self, rollout: str, reason: str = "") -> Json:
        """Hold a rollout where it is."""
        return self._post(f"rollouts/{part(rollout)}/pause", {"reason": reason})

    def resume(self, rollout: str, reason: str = "") -> Json:
        """Go on with a paused rollout."""
        return self._post(f"rollouts/{part(rollout)}/resume", {"reason": reason})

    def roll_back(self, rollout: str, reason: str = "") -> Json:
        """Put every device of a rollout back on the release it had before."""
        return self._post(f"rollouts/{part(rollout)}/rollback", {"reason": reason})

    def verdicts(self, rollout: str, limit: int = MOST) -> list[Json]:
        """List the newest stored verdicts of a rollout, oldest first."""
        return self._first(f"verdicts/{part(rollout)}", limit)[::-1]

    def replay(self, verdict: int) -> Json:
        """Judge a stored verdict's inputs again."""
        return self._post(f"verdicts/{verdict}/replay", None)
