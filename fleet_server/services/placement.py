"""Where a device's windows belong, and what a device that is new should run."""

from collections.abc import Sequence

import sqlalchemy as sa

from edge_core.messages.telemetry import StatsWindow
from fleet_server.services import desired
from fleet_server.services.catalog import Catalog
from fleet_server.services.desired import Wanted
from fleet_server.storage import desired_states, devices, releases, rollouts
from fleet_server.storage.windows import OUTSIDE

ROLES_OF_ARM = {
    "candidate": {"candidate"},
    "shadow": {"candidate", "shadow"},
    "control": {"control"},
}
"""Arms that only a device with one of these roles may report evidence for."""


class Places:
    """Stage of each running rollout, and the roles of some devices."""

    def __init__(self, connection: sa.Connection, names: Sequence[str]) -> None:
        """Read the roles of these devices; no others may be asked for."""
        self._stages = {}
        for row in rollouts.unfinished(connection):
            roles = rollouts.roles_of(connection, row.rollout, row.stage, names)
            self._stages[row.rollout] = (row.stage, roles)

    def of(self, window: StatsWindow) -> tuple[str, int]:
        """(rollout, stage) whose evidence a window adds to, or :data:`OUTSIDE`.

        A device cannot put itself into an arm: what does not fit its role counts nowhere.
        """
        found = self._stages.get(window.rollout or "")
        if found is None or window.rollout is None:
            return OUTSIDE
        stage, roles = found
        needed = ROLES_OF_ARM.get(window.arm)
        if needed is not None and roles.get(window.device) not in needed:
            return OUTSIDE
        return window.rollout, stage


def place_new_device(connection: sa.Connection, catalog: Catalog, device: str, now_ms: int) -> None:
    """Give a device that reports for the first time what is in production for its target.

    A release that was revoked is given to nobody. Where several models would fit, nobody but an
    operator can know which one it is for.
    """
    known = devices.one(connection, device)
    if known is None or desired_states.one(connection, device) is not None:
        return
    target = known.target
    listed = releases.listing(connection)
    fitting = [
        row.digest
        for row in releases.in_production(connection).values()
        if listed[row.digest] and target in catalog.require(connection, row.digest).targets
    ]
    if len(fitting) == 1:
        wanted = {device: Wanted(active=fitting[0])}
        desired.want(connection, wanted, [known], now_ms, stored={})
