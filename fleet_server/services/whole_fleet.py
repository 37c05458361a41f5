"""What one decision reads of the whole fleet: once, however many of its steps look at it."""

from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from fleet_server.storage import desired_states, devices, rollouts
from fleet_server.storage.desired_states import Desired
from fleet_server.storage.devices import Device


class WholeFleet:
    """Rows of every device as one transaction sees them.

    Whoever writes such rows in the same transaction notes them here, too.
    """

    def __init__(self) -> None:
        self._devices: list[Device] | None = None
        self._desired: dict[str, Desired] | None = None
        self._roles: dict[tuple[str, int], dict[str, str]] = {}

    def devices(self, connection: sa.Connection) -> list[Device]:
        """All devices by name."""
        if self._devices is None:
            self._devices = devices.every(connection)
        return self._devices

    def desired(self, connection: sa.Connection) -> dict[str, Desired]:
        """Desired state of every device that has one; not to be changed."""
        if self._desired is None:
            self._desired = desired_states.every(connection)
        return self._desired

    def roles(self, connection: sa.Connection, rollout: str, stage: int) -> dict[str, str]:
        """Device -> role in one stage; not to be changed."""
        if (rollout, stage) not in self._roles:
            self._roles[rollout, stage] = rollouts.roles(connection, rollout, stage)
        return self._roles[rollout, stage]

    def ordered(self, rows: Iterable[Desired]) -> None:
        """Note desired states that were written."""
        if self._desired is not None:
            self._desired.update((row.device, row) for row in rows)

    def assigned(self, rollout: str, stage: int, roles: Mapping[str, str]) -> None:
        """Note roles that were written."""
        if (rollout, stage) in self._roles:
            self._roles[rollout, stage].update(roles)
