"""What each device should run: written in a use case's transaction, sent after its commit."""

from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa

from edge_core.messages import codec
from edge_core.messages.deployment import DESIRED_VERSION, DesiredState, DesiredState1
from edge_core.messages.telemetry import Arm
from edge_core.release import ReleaseRef
from fleet_server.services.clock import Clock
from fleet_server.storage import desired_states, devices, journal, refusals, releases
from fleet_server.storage.database import Database
from fleet_server.storage.desired_states import Desired

RETRY_MS = 5000
MOST_AT_ONCE = 10_000


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """One desired state, packed for the wire."""

    device: str
    revision: int
    payload: bytes


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a device should run, without its revision; releases by digest."""

    active: str | None
    shadow: str | None = None
    arm: Arm = "incumbent"
    rollout: str | None = None


def want(
    connection: sa.Connection,
    wanted: dict[str, Wanted],
    known: Sequence[devices.Device],
    now_ms: int,
    stored: Mapping[str, Desired] | None = None,
) -> list[Desired]:
    """Write the desired states that differ from what is ``stored``; those that did.

    What is stored is read where it is not given.
    """
    stored = desired_states.every(connection) if stored is None else stored
    answered = {device.device: device.desired_revision for device in known}
    changed = []
    for device, wish in wanted.items():
        before = stored.get(device)
        if before is not None and _same(before, wish):
            continue
        newest = max(before.revision if before else 0, answered.get(device, 0))
        row = Desired(
            device=device,
            revision=newest + 1,
            issued_ms=now_ms,
            active=wish.active,
            shadow=wish.shadow,
            arm=wish.arm,
            rollout=wish.rollout,
            sent_ms=None,
            confirmed_sent=False,
            attempts=1,
        )
        changed.append(row)
    desired_states.put(connection, changed)
    return changed


def retry(
    connection: sa.Connection,
    known: Sequence[devices.Device],
    most: int,
    wait_seconds: float,
    now_ms: int,
) -> list[Desired]:
    """Ask devices again that failed without refusing, ever more rarely, until ``most`` times.

    Returns the orders that were written.

    One that never answers is not asked again: the broker keeps its order. One that refuses says
    the same next time.
    """
    asked = []
    for device, row in _failed(connection, known):
        name = device.device
        if row.attempts >= most:
            continue
        if now_ms < row.issued_ms + 1000 * wait_seconds * 2 ** (row.attempts - 1):
            continue
        again = msgspec.structs.replace(
            row,
            revision=row.revision + 1,
            issued_ms=now_ms,
            sent_ms=None,
            confirmed_sent=False,
            attempts=row.attempts + 1,
        )
        asked.append(again)
        text = f"asked again, {again.attempts} of {most} times: {device.reason}"
        journal.add_event(connection, now_ms, "device", name, text)
    desired_states.put(connection, asked)
    return asked


def ask_again(
    connection: sa.Connection, known: Sequence[devices.Device], since_ms: int, now_ms: int
) -> list[Desired]:
    """Repeat, as new, the orders that devices gave up on because the server was away.

    Only orders from before ``since_ms``, so that each is repeated once for each time that it was
    away; and none of a release that its device refuses. Returns those that were written.
    """
    asked = []
    for device, row in _failed(connection, known):
        if row.issued_ms >= since_ms:
            continue
        again = msgspec.structs.replace(
            row, revision=row.revision + 1, issued_ms=now_ms, sent_ms=None, confirmed_sent=False
        )
        asked.append(again)
        text = f"asked again, for the server was away: {device.reason}"
        journal.add_event(connection, now_ms, "device", device.device, text)
    desired_states.put(connection, asked)
    return asked


def _failed(
    connection: sa.Connection, known: Sequence[devices.Device]
) -> list[tuple[devices.Device, Desired]]:
    """Devices whose present order failed though they refuse none of its releases."""
    failed = [device for device in known if device.update_state == "failed"]
    if not failed:
        return []
    wanted = desired_states.named(connection, [device.device for device in failed])
    refused = {(row.device, row.digest) for row in refusals.every(connection)}
    answered = [
        (device, wanted[device.device])
        for device in failed
        if device.device in wanted and device.desired_revision == wanted[device.device].revision
    ]
    return [
        (device, row)
        for device, row in answered
        if not {(row.device, row.active), (row.device, row.shadow)} & refused
    ]


def _same(row: Desired, wish: Wanted) -> bool:
    return (row.active, row.shadow, row.arm, row.rollout) == (
        wish.active,
        wish.shadow,
        wish.arm,
        wish.rollout,
    )


class DesiredStates:
    """Decides what has to be sent, and keeps book of what was."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        republish_seconds: float,
        *,
        confirm_seconds: float | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._republish_ms = round(republish_seconds * 1000)
        self._confirm_seconds = confirm_seconds

    def to_send(self) -> list[Outgoing]:
        """Desired states that the broker does not hold, or that a device has not answered."""
        now = self._clock()
        with self._database.read() as connection:
            due = desired_states.due(
                connection, now - RETRY_MS, now - self._republish_ms, MOST_AT_ONCE
            )
            names = [row.device for row in due]
            confirmed = desired_states.confirmed(connection, names)
            refs = {ref.digest: ref for ref in releases.identities(connection)} if due else {}
            reports = devices.reports(connection, names)
        return [
            self._packed(
                row,
                refs,
                confirmed=confirmed.get(row.device) == row.revision,
                reads=_version(reports.get(row.device)),
            )
            for row in due
        ]

    def _packed(
        self, row: Desired, refs: dict[str, ReleaseRef], *, confirmed: bool, reads: int
    ) -> Outgoing:
        """The message, in the version that the device reads.

        Only a candidate needs the server's confirmation. Going back, and what is in production,
        must never wait for anybody.
        """
        state = DesiredState(
            revision=row.revision,
            issued_ms=row.issued_ms,
            active=None if row.active is None else refs[row.active],
            shadow=None if row.shadow is None else refs[row.shadow],
            arm=msgspec.convert(row.arm, Arm),
            rollout=row.rollout,
            confirm_seconds=self._confirm_seconds if row.arm == "candidate" else None,
            confirmed=confirmed,
        )
        sent = state if reads >= DESIRED_VERSION else DesiredState1.of(state)
        return Outgoing(device=row.device, revision=row.revision, payload=codec.encode(sent))

    def sent(self, outgoing: Sequence[Outgoing]) -> None:
        """Note what was handed to the broker."""
        now = self._clock()
        with self._database.write() as connection:
            pairs = [(message.device, message.revision) for message in outgoing]
            desired_states.note_sent(connection, pairs, now)

    def delivered(self, confirmed: Sequence[tuple[str, int]]) -> None:
        """Note (device, revision) pairs that the broker confirmed."""
        with self._database.write() as connection:
            desired_states.note_delivered(connection, confirmed)

    def broker_forgot(self) -> None:
        """Send everything again: the broker came up without what it held."""
        with self._database.write() as connection:
            desired_states.forget_deliveries(connection)


class _Versioned(msgspec.Struct):
    v: int


def _version(reported: bytes | None) -> int:
    """Which desired states a device reads: it reports in the same version; 1 where unknown."""
    return msgspec.json.decode(reported, type=_Versioned).v if reported else 1
