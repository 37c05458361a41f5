"""The agent's account of itself: to a person, to the log, and to the fleet."""

import logging
from collections.abc import Collection

import msgspec

from edge_agent.commands import Commands
from edge_agent.identity.renewal import Renewal
from edge_agent.inbox import Inbox
from edge_agent.memory_keeper import MemoryKeeper
from edge_agent.monitor import Monitor
from edge_agent.outbox import Outbox
from edge_agent.reference_time import ReferenceTime
from edge_agent.sending import Sending
from edge_agent.serving import standing
from edge_agent.serving.engine import Engine
from edge_agent.update.updater import Updater
from edge_core.messages.telemetry import FallbackMode, ReportedState

log = logging.getLogger(__name__)


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Whom the account is of."""

    engine: Engine
    updater: Updater
    monitor: Monitor
    keeper: MemoryKeeper
    commands: Commands
    outbox: Outbox
    inbox: Inbox
    sending: Sending
    time: ReferenceTime
    renewal: Renewal | None = None
    """None where the device has no certificate."""


class Account:
    """Asks the parts how they stand; changes none of them. On the event loop."""

    def __init__(
        self,
        parts: Parts,
        *,
        device: str,
        target: str,
        slices: dict[str, str],
        declared: Collection[str],
    ) -> None:
        """Take the parts and what the settings say of the device.

        Args:
            parts: all of them.
            device: its name in the fleet.
            target: which variants it runs.
            slices: what it belongs to.
            declared: consumers that are known to ask; none where the settings name nobody.
        """
        self._parts = parts
        self._device = device
        self._target = target
        self._slices = slices
        self._declared = set(declared)
        self._modes: list[FallbackMode] = []
        self._troubles: list[str] = []
        self.said = ""
        """The latest line for a person."""

    def status(self) -> dict[str, str | int | float | bool | None]:
        """What the agent is doing, for ``serinus-agent status``."""
        parts = self._parts
        updater = parts.updater
        return {
            "device": self._device,
            "target": self._target,
            **standing.described(parts.engine),
            "update": updater.entry.state,
            "reason": updater.reason,
            "connected": parts.sending.connected,
            "undeclared_consumers": ", ".join(self._undeclared()),
            "memory_stored": parts.keeper.stored,
            "commands_unreadable": parts.commands.unreadable,
            "samples_too_big": parts.monitor.unsendable_samples,
            "dropped_statistics": parts.monitor.dropped_cells,
            "unsent_bytes": parts.outbox.size,
            "dropped_messages": parts.outbox.dropped,
            "troubles": "; ".join(self._standing_troubles()),
            "refused_messages": parts.inbox.refused,
        }

    def _undeclared(self) -> list[str]:
        """Who asked and is not known to; nobody where the settings name nobody."""
        return sorted(self._parts.engine.consumers - self._declared) if self._declared else []

    def _standing_troubles(self) -> list[str]:
        """What stands wrong with the device itself, whatever its releases do."""
        parts = self._parts
        found = [*parts.outbox.troubles, parts.updater.trouble, parts.keeper.trouble]
        found.append(parts.time.trouble)
        if parts.renewal is not None:
            found.append(parts.renewal.trouble)
        return [trouble for trouble in found if trouble]

    def log_fields(self) -> dict[str, str | None]:
        """What each line of the log says beside its message."""
        active = self._parts.engine.active
        return {
            "device": self._device,
            "release": active.ref.name if active else None,
            "update": self._parts.updater.entry.state,
        }

    def news(self) -> bool:
        """Whether the baseline began or ended to answer, or a trouble came or went, since asked."""
        modes, troubles = standing.modes(self._parts.engine), self._standing_troubles()
        changed = modes != self._modes or troubles != self._troubles
        self._modes, self._troubles = modes, troubles
        return changed

    def reported(self, at_ms: int) -> ReportedState:
        """What the fleet is told."""
        engine, updater = self._parts.engine, self._parts.updater
        active, shadow = engine.active, engine.shadow
        desired = updater.entry.desired
        return ReportedState(
            device=self._device,
            at_ms=at_ms,
            target=self._target,
            runtime=active.session.runtime if active else "",
            slices=self._slices,
            desired_revision=desired.revision if desired else 0,
            active=active.ref if active else None,
            previous=updater.previous,
            shadow=shadow.ref if shadow else None,
            update=updater.state,
            reason=updater.reason,
            refusals=updater.entry.refusals,
            fallbacks=standing.modes(engine),
            commands=self._parts.commands.outcomes,
            placement=standing.placement(active) if active else None,
            shadow_dropped=engine.shadow_dropped,
            probation=updater.probation,
            troubles=self._standing_troubles(),
        )

    def say(self, state: ReportedState) -> None:
        """Log what a person on the device would ask for, when it changes."""
        active = state.active.name if state.active else "no release"
        shadow = f", {state.shadow.name} in the shadow" if state.shadow else ""
        reason = f" ({state.reason})" if state.reason else ""
        said = f"{state.update}{reason}: {active} serves{shadow}"
        if said != self.said:
            self.said = said
            log.info("%s", said)
