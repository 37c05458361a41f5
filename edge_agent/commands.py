"""Takes operators' commands: each once, in the order in which they were issued, over restarts.

What was ordered stands in ``commands.json`` of the state folder, written before it takes effect. A
file that cannot be read is counted and begins anew without orders: the model answers.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from edge_agent.serving.policy import Order
from edge_core import durable
from edge_core.messages import codec
from edge_core.messages.command import Command, FallbackOn
from edge_core.messages.telemetry import CommandOutcome

FILE = "commands.json"
COMMANDS_VERSION = 1
MAX_FILE_BYTES = 128 * 1024
"""Holds all models and outcomes with their longest texts, every character escaped."""
MAX_MODELS = 16
MAX_OUTCOMES = 32
REPORTED = 8

Outcome = Literal["done", "expired", "superseded", "refused"]

log = logging.getLogger(__name__)


class _Standing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stands for one model since its latest command."""

    model: str
    issued_ms: int
    on: bool
    reason: str = ""
    since_ms: int = 0
    until_ms: int | None = None


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    v: int = COMMANDS_VERSION
    standing: list[_Standing] = []
    outcomes: list[CommandOutcome] = []


class Commands:
    """What operators ordered of this device. On the event loop."""

    def __init__(
        self, state_dir: Path, *, now_ms: Callable[[], int], follow: Callable[[list[Order]], None]
    ) -> None:
        """Read what was ordered before.

        Args:
            state_dir: where it is kept.
            now_ms: UTC clock.
            follow: takes all orders, at the beginning and whenever they change.
        """
        self._path = state_dir / FILE
        self._now_ms = now_ms
        self._follow = follow
        self.unreadable = 0
        """Files that could not be read, since the process began."""
        self._kept = self._read()
        self._follow(self.orders)

    @property
    def orders(self) -> list[Order]:
        """Orders that stand; some may have ended by now."""
        return [
            Order(model=s.model, reason=s.reason, since_ms=s.since_ms, until_ms=s.until_ms)
            for s in self._kept.standing
            if s.on
        ]

    @property
    def outcomes(self) -> list[CommandOutcome]:
        """What became of the latest commands, for the reported state; newest last."""
        return self._kept.outcomes[-REPORTED:]

    def take(self, payload: bytes) -> CommandOutcome:
        """Carry out one command, or say again what became of it.

        Raises:
            InvalidMessage: it cannot be read, so that nobody can be told its outcome.
        """
        command = codec.decode(Command, payload)
        outcomes = self._kept.outcomes
        for known in outcomes:
            if known.id == command.id:
                # The server has not heard of it: it is among the latest that are reported again.
                again = [*(o for o in outcomes if o is not known), known]
                self._kept = msgspec.structs.replace(self._kept, outcomes=again)
                return known
        now = self._now_ms()
        outcome, detail, standing = self._judged(command, now)
        done = CommandOutcome(id=command.id, outcome=outcome, detail=detail, at_ms=now)
        self._keep(standing, done)
        log.warning("command %s: %s%s", command.id, outcome, f" ({detail})" if detail else "")
        return self._kept.outcomes[-1]

    def _judged(self, command: Command, now_ms: int) -> tuple[Outcome, str, list[_Standing]]:
        """Outcome, its reason, and what stands after it."""
        standing, action = self._kept.standing, command.action
        if now_ms >= command.expires_ms:
            late = (now_ms - command.expires_ms) / 1000
            return "expired", f"it expired {late:.0f} s ago by this device's clock", standing
        others = [s for s in standing if s.model != action.model]
        newest = max((s.issued_ms for s in standing if s.model == action.model), default=-1)
        if command.issued_ms < newest:
            return "superseded", f"a later command for {action.model} was there first", standing
        if len(others) >= MAX_MODELS:
            others = [s for s in others if s.on]  # what is off already needs no memory
            if len(others) >= MAX_MODELS:
                return "refused", f"{MAX_MODELS} models are ordered to fall back already", standing
        if not isinstance(action, FallbackOn):
            off = _Standing(model=action.model, issued_ms=command.issued_ms, on=False)
            return "done", "", [*others, off]
        if action.until_ms is not None and action.until_ms <= now_ms:
            return "expired", "its end has passed by this device's clock", standing
        on = _Standing(
            model=action.model,
            issued_ms=command.issued_ms,
            on=True,
            reason=action.reason,
            since_ms=now_ms,
            until_ms=action.until_ms,
        )
        return "done", "", [*others, on]

    def _keep(self, standing: list[_Standing], done: CommandOutcome) -> None:
        outcomes = [*self._kept.outcomes, done][-MAX_OUTCOMES:]
        kept = _File(standing=standing, outcomes=outcomes)
        try:
            durable.write_bytes(self._path, msgspec.json.encode(kept))
        except OSError as error:  # to fall back matters more than to remember it
            detail = f"not kept over a restart: {error.strerror}"
            outcomes[-1] = msgspec.structs.replace(done, detail=done.detail or detail)
        self._kept = kept
        self._follow(self.orders)

    def _read(self) -> _File:
        try:
            with self._path.open("rb") as stream:
                data = stream.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return _File()
        except OSError as error:
            return self._begun_anew(str(error.strerror))
        try:
            kept = msgspec.json.decode(data, type=_File)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return self._begun_anew(str(error)[:200])
        if kept.v != COMMANDS_VERSION or len(data) > MAX_FILE_BYTES:
            return self._begun_anew(f"version {kept.v}, {len(data)} bytes")
        return kept

    def _begun_anew(self, why: str) -> _File:
        self.unreadable += 1
        log.error("%s cannot be read, so that no order of it stands: %s", self._path, why)
        return _File()
