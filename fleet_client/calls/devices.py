"""Devices and what is ordered of them."""

from collections.abc import Iterator, Sequence
from typing import Any

from fleet_client.transport import MOST, Calls, Json, part


class DeviceCalls(Calls):
    """Devices and what is ordered of them."""

    def fleet(self) -> Json:
        """Answer with the fleet in numbers."""
        return self._get("fleet")

    def devices(self, query: str = "") -> list[Json]:
        """List devices: those that a query or a group's name means, or all."""
        return list(self.each_device(query))

    def each_device(self, query: str = "") -> Iterator[Json]:
        """Devices one after another, a page at a time."""
        return self._pages("devices", **({"query": query} if query else {}))

    def device(self, name: str) -> Json:
        """Show one device with its whole reported state."""
        return self._get(f"devices/{part(name)}")

    def fallback_on(
        self,
        devices: Sequence[str],
        *,
        reason: str = "",
        for_seconds: float | None = None,
        model: str | None = None,
    ) -> list[Json]:
        """Let the baseline answer on these devices at once; returns a command for each.

        Args:
            devices: their names; all of them are ordered, or none.
            reason: why; kept in the log.
            for_seconds: when it ends by itself; none: when it is ordered.
            model: whose baseline; none: that of the release which each device runs.
        """
        return self._command(
            "fallback_on", devices, reason=reason, for_seconds=for_seconds, model=model
        )

    def fallback_off(
        self, devices: Sequence[str], *, reason: str = "", model: str | None = None
    ) -> list[Json]:
        """Let the model answer again on these devices; arguments as :meth:`fallback_on`."""
        return self._command("fallback_off", devices, reason=reason, model=model)

    def commands(self, device: str) -> list[Json]:
        """List a device's commands and what became of them, newest first."""
        return self._items(f"devices/{part(device)}/commands")

    def _command(self, kind: str, devices: Sequence[str], **body: Any) -> list[Json]:
        answer = self._post("commands", {"kind": kind, "devices": list(devices), **body})
        items: list[Json] = answer["items"]
        return items

    def refusals(self, limit: int = MOST) -> list[Json]:
        """List releases that devices would not install, and why."""
        return self._first("refusals", limit)
