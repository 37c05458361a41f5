"""Takes in what devices say: one transaction for each batch, nothing counted twice."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from edge_core.errors import InvalidMessage
from edge_core.messages import codec, topics
from edge_core.messages import windows as messages
from edge_core.messages.telemetry import Online, ReportedState, Sample, StatsWindow
from edge_core.messages.windows import Head
from fleet_server.domain.quota import Quota
from fleet_server.domain.voices import Voices
from fleet_server.services import confirming, labels, parity, placement, screening
from fleet_server.services.catalog import Catalog, Release
from fleet_server.services.clock import Clock
from fleet_server.services.commands import note_outcomes
from fleet_server.services.evaluators import Evaluators
from fleet_server.services.folding import Fold
from fleet_server.services.measures import Measures
from fleet_server.services.screening import Rejection
from fleet_server.storage import devices, journal, refusals, runs, windows
from fleet_server.storage.database import Database
from fleet_server.storage.epochs import Outbox, Receipts
from fleet_server.storage.refusals import StoredRefusal
from fleet_server.storage.windows import StoredWindow, TotalsKey

CLOCK = "clock"
MOST_CHANGES = 120
"""Of one device in an hour: other releases, reasons, refusals, outboxes and wrong clocks, which
leave rows for long. One that updates every minute tells fewer."""
RETURNING = ("failed", "recovering")
MOST_REFUSALS = 8
"""In one report; an agent holds no more."""
KEPT_REFUSALS = 64
"""Of one device, the latest."""
UNKNOWN = "releases that were never approved here"


class Inbound(msgspec.Struct, frozen=True, kw_only=True):
    """One message as it came from the broker."""

    topic: str
    payload: bytes
    retained: bool = False
    """The broker kept it and says it again: it proves nothing about now."""


class Ingest:
    """Messages -> stored windows, sums and device states. Untrue ones are counted and left out."""

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        clock: Clock,
        *,
        drift_period_seconds: float,
        future_seconds: float,
        hour_days: float = 90.0,
        measures: Measures | None = None,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._clock = clock
        self._period_ms = round(drift_period_seconds * 1000)
        self._future_ms = round(future_seconds * 1000)
        self._hours_ms = round(hour_days * 86_400_000)
        self._evaluators = Evaluators()
        self._measures = measures or Measures()
        self._changes = Quota(MOST_CHANGES)
        self._voices = Voices()

    def take(self, batch: Sequence[Inbound]) -> None:
        """Store a batch; when this returns, every message of it may be acknowledged.

        Raises:
            Unavailable: the database cannot be written now; nothing of the batch is stored.
        """
        begun, now = time.perf_counter(), self._clock()
        with self._database.write() as connection:
            latest = now + self._future_ms
            period, oldest = now // self._period_ms, now - self._hours_ms
            fold = Fold(connection, period, now, self._voices, oldest)
            work = _Batch(
                connection,
                self._catalog,
                now,
                latest,
                period,
                fold,
                self._evaluators,
                self._changes,
            )
            work.take([_read(message) for message in batch])
            work.finish()
        self._measures.took_in(len(batch), time.perf_counter() - begun, work.ages(self._clock()))

    def reject(self, message: Inbound, reason: str, detail: str) -> None:
        """Count one message as not taken in."""
        with self._database.write() as connection:
            device, kind = _sender(message.topic)
            journal.reject(connection, self._clock(), device, kind, reason, detail)


class _Read(NamedTuple):
    """A message that was looked at, before the database is asked anything."""

    message: Inbound
    sender: str
    kind: str
    """As the topic claims; for counting only."""
    topic: topics.UpTopic | None
    window: Head | StatsWindow | None
    problem: str


def _read(message: Inbound) -> _Read:
    sender, kind = _sender(message.topic)
    try:
        topic = topics.parse_up(message.topic)
        if topic.kind != "stats":
            return _Read(message, sender, kind, topic, None, "")
        came = codec.decode_window(message.payload)
        window = came if isinstance(came, StatsWindow) else messages.head(came)
    except InvalidMessage as error:
        return _Read(message, sender, kind, None, None, str(error))
    return _Read(message, sender, kind, topic, window, "")


class _Batch:
    """One transaction's worth of messages."""

    def __init__(
        self,
        connection: sa.Connection,
        catalog: Catalog,
        now_ms: int,
        latest_ms: int,
        period: int,
        fold: Fold,
        evaluators: Evaluators,
        changes: Quota,
    ) -> None:
        self._connection = connection
        self._evaluators = evaluators
        self._changes = changes
        self._catalog = catalog
        self._now = now_ms
        self._latest = latest_ms
        self._period = period
        self._fold = fold
        self._receipts = Receipts(connection)
        self._wrong_clocks = {alert.subject for alert in journal.open_alerts(connection, CLOCK)}
        self._places = placement.Places(connection, ())
        self._known: set[str] = set()
        """Devices that were seen before."""
        self._windows: list[StoredWindow] = []
        self._retained = False
        self._heard: set[str] = set()
        self._kinds: dict[str, Callable[[str, bytes], Rejection | None]] = {
            "samples": self._sample,
            "state": self._state,
            "online": self._online,
        }

    def take(self, batch: Sequence[_Read]) -> None:
        """Take in messages one after another, or count why not."""
        self._load(batch)
        for read in batch:
            rejection = self._take(read)
            if rejection is not None:
                journal.reject(
                    self._connection,
                    self._now,
                    read.sender,
                    read.kind,
                    rejection.reason,
                    rejection.detail,
                )

    def finish(self) -> None:
        """Write what the batch adds up to, and confirm trials of devices that were heard of."""
        windows.add_windows(self._connection, self._windows)
        self._receipts.write()
        self._fold.write()
        heard = sorted(self._heard)
        devices.note_alive(self._connection, heard, self._now)
        for device in devices.on_trial(self._connection, heard, confirming.ON_TRIAL):
            confirming.consider(self._connection, device, self._now)

    def ages(self, now_ms: int) -> list[float]:
        """How long ago each window that is stored was closed, in seconds."""
        return [(now_ms - window.closed_ms) / 1000 for window in self._windows]

    def _load(self, batch: Sequence[_Read]) -> None:
        """Read at once what the messages will ask for; nothing is believed of them yet."""
        names = sorted({read.topic.device for read in batch if read.topic is not None})
        self._known = devices.known(self._connection, names)
        self._places = placement.Places(self._connection, names)
        told = [
            (read.topic.device, read.window)
            for read in batch
            if read.topic is not None and read.window is not None
        ]
        self._receipts.load(Outbox(device, said.epoch) for device, said in told)
        keys = [key for device, said in told if (key := self._sums_of(device, said)) is not None]
        self._fold.load(keys)

    def _sums_of(self, device: str, said: Head | StatsWindow) -> TotalsKey | None:
        """Whose sums a window may add to."""
        if isinstance(said, StatsWindow):
            return device, said.release.digest, said.arm
        arm = messages.arm_of(said)
        release = self._catalog.tagged(self._connection, said.release)
        return None if arm is None or release is None else (device, release.ref.digest, arm)

    def _take(self, read: _Read) -> Rejection | None:
        if read.topic is None:
            return Rejection(reason="unreadable message", detail=read.problem)
        self._retained = read.message.retained
        try:
            if read.window is not None:
                return self._stats(read.topic.device, read.window, read.message.payload)
            return self._kinds[read.topic.kind](read.topic.device, read.message.payload)
        except InvalidMessage as error:
            return Rejection(reason="unreadable message", detail=str(error))

    def _stats(self, device: str, said: Head | StatsWindow, payload: bytes) -> Rejection | None:
        if not _speaks_for(said, device):
            return _foreign(said.device if isinstance(said, StatsWindow) else "another device")
        place = (device, said.epoch, said.sequence)
        if self._receipts.known(*place):
            return None
        taken = self._whole(said, device)
        if isinstance(taken, Rejection):
            self._receipts.pass_over(*place)
            return taken
        if not self._receipts.begun(device, said.epoch) and not self._may_change(device):
            return _too_many("outboxes")
        window, release = taken
        self._seen(device)
        self._store(self._timed(window), payload)
        noisy = release.window_schema.epsilon is not None
        scores = screening.scores(window, release)
        self._fold.add(window, self._places.of(window), noisy=noisy, scores=scores)
        return None

    def _whole(
        self, said: Head | StatsWindow, device: str
    ) -> tuple[StatsWindow, Release] | Rejection:
        """A window with its release, or why it cannot be true."""
        try:
            if isinstance(said, Head):
                release = self._catalog.tagged(self._connection, said.release)
                if release is None:
                    return Rejection(reason="unknown release", detail=said.release.hex())
                window = messages.unpack(said, release.window_schema, device)
            else:
                window = said
                release = self._catalog.get(self._connection, window.release.digest)
        except InvalidMessage as error:
            return Rejection(reason="unreadable message", detail=str(error))
        rejection = screening.window_rejection(window, release, self._fold.totals(window))
        if rejection is not None:
            return rejection
        assert release is not None  # or it would have been rejected
        return window, release

    def _timed(self, window: StatsWindow) -> StatsWindow:
        """The window with times that can be; what it counts is taken whatever its clock says."""
        wrong = screening.clock_is_wrong(window, self._latest)
        subject = window.device
        if wrong and subject not in self._wrong_clocks and self._may_change(subject):
            self._wrong_clocks.add(subject)
            title = f"the clock of {subject} is wrong: set it; its statistics are taken as of now"
            detail = {"opened_ms": window.opened_ms, "closed_ms": window.closed_ms}
            journal.open_alert(self._connection, self._now, CLOCK, subject, title, detail)
        if not wrong and subject in self._wrong_clocks:
            self._wrong_clocks.discard(subject)
            journal.close_alert(self._connection, self._now, CLOCK, subject)
        if not wrong:
            return window
        return msgspec.structs.replace(window, opened_ms=self._now, closed_ms=self._now)

    def _store(self, window: StatsWindow, payload: bytes) -> None:
        right, wrong = screening.labelled(window)
        self._receipts.take(window.device, window.epoch, window.sequence)
        stored = StoredWindow(
            device=window.device,
            epoch=window.epoch,
            sequence=window.sequence,
            received_ms=self._now,
            opened_ms=window.opened_ms,
            closed_ms=window.closed_ms,
            digest=window.release.digest,
            target=window.target,
            arm=window.arm,
            rollout=window.rollout,
            slices=window.slices,
            rows=window.rows,
            errors=window.errors,
            late=window.late,
            right=right,
            wrong=wrong,
            body=payload,
        )
        self._windows.append(stored)

    def _sample(self, device: str, payload: bytes) -> Rejection | None:
        sample = codec.decode(Sample, payload)
        if sample.device != device:
            return _foreign(sample.device)
        release = self._catalog.get(self._connection, sample.release.digest)
        rejection = screening.sample_rejection(sample, release)
        if rejection is None and release is not None:
            parity.record(self._connection, sample, release, self._evaluators, self._now)
            labels.sampled(self._connection, sample, release, payload, self._now, self._period)
        return rejection

    def _online(self, device: str, payload: bytes) -> Rejection | None:
        presence = codec.decode(Online, payload)
        if presence.device != device:
            return _foreign(presence.device)
        self._seen(device, alive=presence.online)  # the broker says the last will, not the device
        devices.change(self._connection, device, online=presence.online)
        return None

    def _state(self, device: str, payload: bytes) -> Rejection | None:
        state = codec.decode(ReportedState, payload)
        if state.device != device:
            return _foreign(state.device)
        self._seen(device)
        before = devices.one(self._connection, device)
        assert before is not None  # noted as seen just above
        news = _news(before, state)
        refused = self._new_refusals(state)
        if (news or refused) and not self._may_change(device):
            return _too_many("changes")
        active = state.active.digest if state.active else None
        since = before.active_since_ms if before.active == active else self._now
        devices.change(
            self._connection,
            device,
            target=state.target,
            runtime=state.runtime,
            slices=state.slices,
            active=active,
            active_since_ms=since,
            shadow=state.shadow.digest if state.shadow else None,
            update_state=state.update,
            reason=state.reason,
            desired_revision=state.desired_revision,
            trouble=state.troubles[0] if state.troubles else "",
            reported=msgspec.json.encode(state),
        )
        if active != before.active:
            runs.note(self._connection, device, active, self._now)
        for text in news:
            journal.add_event(self._connection, self._now, "device", device, text)
        self._note_refusals(device, refused)
        note_outcomes(self._connection, device, state.commands, self._now)
        if before.target is None:
            placement.place_new_device(self._connection, self._catalog, device, self._now)
        return None

    def _new_refusals(self, state: ReportedState) -> list[StoredRefusal]:
        """Refusals that the device has not told before, of the few that it may hold at once."""
        if not state.refusals:
            return []
        told = refusals.by_device(self._connection, state.device)
        return [
            StoredRefusal(
                device=state.device,
                digest=refusal.release.digest,
                name=refusal.release.name,
                reason=refusal.reason,
                at_ms=refusal.at_ms,
            )
            for refusal in state.refusals[-MOST_REFUSALS:]
            if told.get(refusal.release.digest, refusal.at_ms - 1) < refusal.at_ms
        ]

    def _note_refusals(self, device: str, refused: Sequence[StoredRefusal]) -> None:
        for row in refused:
            refusals.add(self._connection, row)
            self._tell_refusal(row)
        if refused:
            refusals.forget(self._connection, device, KEPT_REFUSALS)

    def _tell_refusal(self, row: StoredRefusal) -> None:
        """Tell it, with one alert for each release that is known here and one for all others."""
        text = f"refuses {row.name}: {row.reason}"
        detail = {"release": row.name, "digest": row.digest}
        journal.add_event(self._connection, self._now, "refusal", row.device, text, detail)
        release = self._catalog.get(self._connection, row.digest)
        refusing = refusals.count(self._connection, row.digest)
        known = release is not None and release.ref.name == row.name
        journal.open_alert(
            self._connection,
            self._now,
            "refusal",
            f"{row.name} {row.digest[:12]}" if known else UNKNOWN,
            f"{refusing} device(s) refuse {row.name}: {row.reason}",
            {**detail, "devices": refusing},
        )

    def _may_change(self, device: str) -> bool:
        return self._changes.take(device, self._now)

    def _seen(self, device: str, *, alive: bool = True) -> None:
        """Note a device, and that it lives where it said so itself just now."""
        now_alive = alive and not self._retained
        if now_alive:
            self._heard.add(device)
        if device in self._known:
            return
        self._known.add(device)
        if devices.seen(self._connection, device, self._now, alive=now_alive):
            journal.add_event(self._connection, self._now, "device", device, "first seen")


def _speaks_for(said: Head | StatsWindow, device: str) -> bool:
    if isinstance(said, StatsWindow):
        return said.device == device
    return said.sender == messages.sender_tag(device)


def _news(before: devices.Device, state: ReportedState) -> list[str]:
    """What is told of a device's report, beside what it refuses."""
    found, active = [], state.active
    if active is not None and active.digest != before.active:
        found.append(f"now runs {active.name}")
    if state.reason and state.update in RETURNING and state.reason != before.reason:
        found.append(f"{state.update}: {state.reason}")
    return found


def _too_many(what: str) -> Rejection:
    return Rejection(reason=f"too many {what}", detail=f"more than {MOST_CHANGES} in an hour")


def _foreign(named: str) -> Rejection:
    return Rejection(reason="speaks for another device", detail=f"the message names {named}")


def _sender(topic: str) -> tuple[str, str]:
    """Device and kind that a topic claims, shortened; for counting only."""
    parts = topic.split("/")
    return (parts[3] if len(parts) > 3 else "?")[:64], parts[-1][:16]
