"""Commands to devices: stored and logged first, then sent until each device says what it did."""

import re
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence

import msgspec
import sqlalchemy as sa

from edge_core.messages import codec
from edge_core.messages.command import Action, Command, FallbackOff, FallbackOn
from edge_core.messages.telemetry import CommandOutcome
from edge_core.release import MODEL_PATTERN
from fleet_server.services.clock import Clock
from fleet_server.services.errors import Conflict, InvalidRequest, NotFound
from fleet_server.storage import audit, commands, devices, journal, releases
from fleet_server.storage.commands import StoredCommand
from fleet_server.storage.database import Database

MAX_DEVICES = 1000
"""In one request."""
MAX_REASON = 500
LONGEST_SECONDS = 366 * 86_400.0
VALID_MS = 86_400_000
"""How long a device may take to come back and still be told."""
SHORTEST_MS = 1000
RESEND_MS = 10_000
MOST_AT_ONCE = 1000
KIND_ON, KIND_OFF = KINDS = ("fallback_on", "fallback_off")


class OutgoingCommand(msgspec.Struct, frozen=True, kw_only=True):
    """One command, packed for the wire."""

    command: str
    device: str
    payload: bytes


def draw_id() -> str:
    """A new command's id."""
    return secrets.token_hex(6)


def issue(
    connection: sa.Connection,
    models: Mapping[str, str],
    kind: str,
    *,
    reason: str,
    until_ms: int | None,
    by: str,
    now_ms: int,
    draw: Callable[[], str] = draw_id,
) -> list[StoredCommand]:
    """Store and log one command for each device; ``models`` says whose baseline answers on it."""
    newest = commands.newest_ms(connection, list(models))
    rows = []
    for name, model in models.items():
        # Later than every earlier one, whatever the clock does: the latest counts.
        issued = max(now_ms, newest.get(name, 0) + 1)
        expires = issued + VALID_MS if until_ms is None else min(until_ms, issued + VALID_MS)
        row = StoredCommand(
            command=draw(),
            device=name,
            kind=kind,
            model=model,
            reason=reason,
            until_ms=until_ms,
            issued_ms=issued,
            expires_ms=max(expires, issued + SHORTEST_MS),
            issued_by=by,
        )
        rows.append(row)
    if rows:
        commands.add(connection, rows)
    journal.add_events(connection, now_ms, "command", [(row.device, _said(row)) for row in rows])
    return rows


class Commands:
    """Use cases on commands."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        wake: threading.Event,
        draw: Callable[[], str] = draw_id,
    ) -> None:
        """Take the parts.

        Args:
            database: to store in.
            clock: milliseconds, UTC.
            wake: set when there is something to send.
            draw: makes the ids of commands.
        """
        self._database = database
        self._clock = clock
        self._wake = wake
        self._draw = draw

    def order(
        self,
        names: Sequence[str],
        kind: str,
        *,
        model: str | None,
        reason: str,
        for_seconds: float | None,
        by: str,
        role: str = "operator",
    ) -> list[StoredCommand]:
        """Order several devices to fall back, or to ask their model again: all of them, or none.

        Args:
            names: of the devices.
            kind: ``fallback_on`` or ``fallback_off``.
            model: whose baseline answers; none: the one of the release that each device runs.
            reason: kept in the log, and shown where the baseline answers.
            for_seconds: when it ends by itself; none: when it is ordered.
            by: who ordered it.
            role: theirs, for the log of decisions.

        Raises:
            InvalidRequest: nothing that a device could do.
            NotFound: a device has never reported.
            Conflict: a device runs no release, and no model is named.
        """
        _check(names, kind, model, reason, for_seconds)
        with self._database.write() as connection:
            now = self._clock()
            models = {name: _model_of(connection, name, model) for name in dict.fromkeys(names)}
            until = None if for_seconds is None else now + round(for_seconds * 1000)
            rows = issue(
                connection, models, kind, reason=reason, until_ms=until, by=by, now_ms=now,
                draw=self._draw,
            )  # fmt: skip
            for row in rows:
                detail = {"model": row.model, "reason": reason, "command": row.command}
                audit.record(
                    connection, at_ms=now, actor=by, role=role, action=f"device.{row.kind}",
                    subject=row.device, detail=detail,
                )  # fmt: skip
        self._wake.set()
        return rows

    def of_device(self, name: str, limit: int) -> list[StoredCommand]:
        """A device's commands, newest first; raise :class:`NotFound`."""
        with self._database.read() as connection:
            _require(connection, name)
            return commands.latest(connection, name, limit)

    def to_send(self) -> list[OutgoingCommand]:
        """Commands that no device has answered yet."""
        now = self._clock()
        with self._database.read() as connection:
            rows = commands.due(connection, now, now - RESEND_MS, MOST_AT_ONCE)
        return [
            OutgoingCommand(command=row.command, device=row.device, payload=_packed(row))
            for row in rows
        ]

    def sent(self, outgoing: Sequence[OutgoingCommand]) -> None:
        """Note what was handed to the broker."""
        if outgoing:
            with self._database.write() as connection:
                names = [message.command for message in outgoing]
                commands.note_sent(connection, names, self._clock())


def note_outcomes(
    connection: sa.Connection, device: str, outcomes: Sequence[CommandOutcome], now_ms: int
) -> None:
    """Take over what a device says it did; what it was never ordered is left out."""
    for found in outcomes:
        news = commands.note_outcome(
            connection, device, found.id, found.outcome, found.detail, now_ms
        )
        if news:
            detail = f": {found.detail}" if found.detail else ""
            text = f"command {found.id} {found.outcome}{detail}"
            journal.add_event(connection, now_ms, "command", device, text)


def _check(
    names: Sequence[str], kind: str, model: str | None, reason: str, for_seconds: float | None
) -> None:
    if kind not in KINDS:
        raise InvalidRequest(f"unknown command {kind[:64]!r}; known are {', '.join(KINDS)}")
    if not 1 <= len(names) <= MAX_DEVICES:
        raise InvalidRequest(f"{len(names)} devices; name 1 to {MAX_DEVICES}")
    if model is not None and not re.match(MODEL_PATTERN, model):
        raise InvalidRequest(f"{model[:64]!r} is no model's name")
    if len(reason) > MAX_REASON or not reason.isprintable():
        raise InvalidRequest(f"a reason is one printable line of at most {MAX_REASON} characters")
    if for_seconds is None:
        return
    if kind != "fallback_on":
        raise InvalidRequest("only fallback_on may end by itself")
    if not 1 <= for_seconds <= LONGEST_SECONDS:
        raise InvalidRequest(f"it may hold for 1 s to {LONGEST_SECONDS / 86_400:.0f} days")


def _require(connection: sa.Connection, name: str) -> devices.Device:
    found = devices.one(connection, name)
    if found is None:
        raise NotFound(f"no device {name[:64]!r} has reported yet; see: serinus devices")
    return found


def _model_of(connection: sa.Connection, name: str, model: str | None) -> str:
    found = _require(connection, name)
    if model is not None:
        return model
    running = releases.names(connection).get(found.active or "")
    if running is None:
        raise Conflict(f"{name} runs no approved release now: name the model")
    return running.partition("@")[0]


def _said(row: StoredCommand) -> str:
    what = "let the baseline answer" if row.kind == "fallback_on" else "ask the model again"
    why = f": {row.reason}" if row.reason else ""
    return f"{row.issued_by} orders to {what} for {row.model} (command {row.command}){why}"


def _packed(row: StoredCommand) -> bytes:
    action: Action
    if row.kind == "fallback_on":
        action = FallbackOn(model=row.model, reason=row.reason, until_ms=row.until_ms)
    else:
        action = FallbackOff(model=row.model, reason=row.reason)
    command = Command(
        id=row.command, issued_ms=row.issued_ms, expires_ms=row.expires_ms, action=action
    )
    return codec.encode(command)
