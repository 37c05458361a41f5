"""Performs the table's actions: fetch, verify, self-test, shadow, activate, watch, recover.

The journal is written before each action, so a power cut at any instruction leaves either the
old or the new release serving, and the next start goes on from the journal.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable

import msgspec

from edge_agent.config import Update
from edge_agent.ports import ApprovedReleases, Clock, Server
from edge_agent.serving.release import LoadedRelease
from edge_agent.update import health, transitions
from edge_agent.update.fetching import Fetcher
from edge_agent.update.journal import Entry, Journal
from edge_agent.update.slots import Pointer, Slots
from edge_agent.update.transitions import Action, Event
from edge_core.bundle import folder as folders
from edge_core.errors import SerinusError, Unavailable
from edge_core.messages.deployment import DesiredState
from edge_core.messages.telemetry import Refusal, UpdateState
from edge_core.release import ReleaseRef

POLL_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 60.0


class Updater:
    """Moves one device from what it runs to what it should run."""

    def __init__(
        self,
        *,
        journal: Journal,
        slots: Slots,
        repository: ApprovedReleases,
        server: Server,
        target: str,
        settings: Update,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        self._journal = journal
        self._slots = slots
        self._fetcher = Fetcher(repository, slots, target)
        self._server = server
        self._target = target
        self._settings = settings
        self._clock = clock
        self._changed = changed
        self._wanted: DesiredState | None = None
        self._wake = asyncio.Event()
        self._loaded: dict[str, LoadedRelease] = {}
        self.entry = Entry()
        self._trouble = ""
        self._following = True
        self._actions: dict[Action, Callable[[], Awaitable[Event]]] = {
            Action.DOWNLOAD: self._download,
            Action.VERIFY: self._verify,
            Action.SELF_TEST: self._self_test,
            Action.LOAD_SHADOW: self._load_shadow,
            Action.ACTIVATE: self._activate,
            Action.WATCH: self._watch,
            Action.RECOVER: self._recover,
        }

    def want(self, desired: DesiredState) -> None:
        """Take the server's newest wish; an older one under way ends at its next step."""
        current = self.entry.desired
        if current is not None and desired.revision == current.revision:
            return
        self._wanted = desired
        self._wake.set()

    @property
    def state(self) -> UpdateState:
        """The state of the update; one that nobody knows is being recovered."""
        return next((name for name in transitions.STATES if name == self.entry.state), "recovering")

    @property
    def reason(self) -> str:
        """Why the update stands where it does: what holds it up now, or how it ended."""
        return self._trouble or self.entry.reason

    @property
    def busy(self) -> bool:
        """Whether a wish is waiting or being followed."""
        return self._wanted is not None or self._following

    def known(self, digest: str | None) -> ReleaseRef | None:
        """Name a release in a slot by its digest."""
        if digest is None or not self._slots.has(digest):
            return None
        try:
            return folders.ref(self._slots.path(digest))
        except SerinusError:
            return None

    async def run(self) -> None:
        """Serve what the pointer names, finish what the journal began, then follow wishes."""
        self.entry = self._journal.read()
        await self._restore()
        self.entry = msgspec.structs.replace(self.entry, starts=self.entry.starts + 1)
        await self._outlasting_the_disk(self._resume)
        while True:
            self._following = False
            await self._wake.wait()
            self._wake.clear()
            self._following = True
            if self._wanted is not None:
                await self._outlasting_the_disk(self._begin)

    async def _outlasting_the_disk(self, step: Callable[[], Awaitable[None]]) -> None:
        """Take a step; where the disk is full or fails, serve on and go on when it works again."""
        attempt = 0
        while True:
            try:
                await step()
                self._trouble = ""
                return
            except OSError as error:
                self._trouble = f"the state folder cannot be written: {error.strerror}"
                self._changed()
            step = self._begin if await self._pause(attempt) else self._resume
            attempt += 1

    async def _resume(self) -> None:
        """Go on from the entry's state, as after a start of the process."""
        row = transitions.restart(self.entry.state, self.entry.starts, self._settings.max_starts)
        if row is None:
            self._journal.write(self.entry)
            return
        starts = self.entry.starts if row.next == self.entry.state else 1
        await self._follow(row, starts=starts)

    async def _begin(self) -> None:
        desired, self._wanted = self._wanted, None
        row = transitions.after(self.state, Event.DESIRED)
        assert row is not None, "every state takes a new wish"
        self.entry = msgspec.structs.replace(self.entry, desired=desired, reason="")
        await self._follow(row, starts=0)

    async def _follow(self, row: transitions.Row, *, starts: int) -> None:
        """Go from row to row until the machine rests or a newer wish is waiting."""
        while True:
            self._enter(row.next, starts)
            action = self._actions.get(row.action)
            if action is None:
                self._clean_up()
                return
            event = await action()
            if self._wanted is not None:
                return  # every state takes a new wish; this one need not be finished
            following = transitions.after(row.next, event)
            assert following is not None, f"no row for {event} in {row.next}"
            row, starts = following, 0

    @property
    def _desired(self) -> DesiredState:
        assert self.entry.desired is not None, "only a wish leads to this state"
        return self.entry.desired

    def _enter(self, state: UpdateState, starts: int) -> None:
        self.entry = msgspec.structs.replace(self.entry, state=state, starts=starts)
        self._journal.write(self.entry)
        self._changed()

    def _refuse(self, ref: ReleaseRef | None, error: SerinusError) -> Event:
        reason = str(error)[:500]
        self.entry = msgspec.structs.replace(self.entry, reason=reason)
        if ref is not None and not isinstance(error, Unavailable):
            refusal = Refusal(release=ref, reason=reason, at_ms=self._clock.now_ms())
            self.entry = self.entry.refused(refusal)
        return Event.REFUSED

    # Actions, in the order of the table.

    async def _download(self) -> Event:
        desired = self._desired
        for ref in _releases(desired):
            if self._serves(ref):
                continue
            event = await self._download_one(ref)
            if event is not Event.DONE:
                return event
        return Event.DONE

    async def _download_one(self, ref: ReleaseRef) -> Event:
        for attempt in range(self._settings.max_attempts):
            try:
                await asyncio.to_thread(self._fetcher.fetch, ref)
                return Event.DONE
            except Unavailable as error:
                failure = error
            except SerinusError as error:
                self._slots.discard(ref.digest)
                return self._refuse(ref, error)
            if await self._pause(attempt):
                return Event.DESIRED
        return self._refuse(
            ref, Unavailable(f"{failure} (gave up after {self._settings.max_attempts} attempts)")
        )

    async def _pause(self, attempt: int) -> bool:
        """Wait before another attempt; true when a newer wish came meanwhile."""
        pause = min(self._settings.retry_seconds * 2**attempt, LONGEST_PAUSE_SECONDS)
        try:
            async with asyncio.timeout(pause * random.uniform(0.5, 1.0)):  # jitter, not a secret
                await self._wake.wait()
        except TimeoutError:
            return False
        return self._wanted is not None

    async def _verify(self) -> Event:
        desired = self._desired
        for ref in _releases(desired):
            try:
                await asyncio.to_thread(self._fetcher.complete, ref)
            except SerinusError as error:
                self._slots.discard(ref.digest)
                return self._refuse(ref, error)
        return Event.DONE

    async def _self_test(self) -> Event:
        desired = self._desired
        for ref in _releases(desired):
            try:
                release = await asyncio.to_thread(self._load, ref)
                if not self._serves(ref):
                    await asyncio.to_thread(self_test, release)
            except SerinusError as error:
                return self._refuse(ref, error)
        return Event.DONE

    async def _load_shadow(self) -> Event:
        desired = self._desired
        shadow = self._loaded.get(desired.shadow.digest) if desired.shadow else None
        active = self._loaded.get(desired.active.digest) if desired.active else None
        if shadow is not None and active is not None and not active.same_windows(shadow):
            return self._refuse(
                shadow.ref,
                SerinusError(f"{shadow.ref.name} uses other windows than {active.ref.name}"),
            )
        self._server.set_shadow(None)
        return Event.DONE

    async def _activate(self) -> Event:
        desired = self._desired
        before = self._slots.pointer()
        wanted = desired.active.digest if desired.active else None
        switched = before.active != wanted
        if switched:
            self._slots.switch(Pointer(active=wanted, previous=before.active))
        self._serve(desired)
        return Event.DONE if switched and wanted is not None else Event.UNCHANGED

    async def _watch(self) -> Event:
        desired = self._desired
        limits = health.Limits(
            seconds=self._settings.probation_seconds,
            rows=self._settings.probation_rows,
            max_error_share=self._settings.max_error_share,
        )
        started = self._clock.monotonic()
        while self._wanted is None:
            elapsed = self._clock.monotonic() - started
            verdict, why = health.probation(self._server.totals, elapsed, limits)
            if verdict == "healthy":
                return Event.DONE
            if verdict == "unhealthy":
                return self._refuse(desired.active, SerinusError(why))
            await asyncio.sleep(POLL_SECONDS)
        return Event.DESIRED

    async def _recover(self) -> Event:
        """Go back to the previous release: one pointer switch, no download, no network."""
        pointer = self._slots.pointer()
        suspect = self.entry.desired.active if self.entry.desired else None
        if suspect is None and pointer.previous is not None:
            # The journal is lost, so nobody knows whether the active release was ever proven.
            self._slots.switch(Pointer(active=pointer.previous, previous=None))
        elif suspect is not None and pointer.active == suspect.digest:
            self._slots.switch(Pointer(active=pointer.previous, previous=None))
        if not self.entry.reason:
            starts = self._settings.max_starts
            self._refuse(suspect, SerinusError(f"more than {starts} starts in probation"))
        await self._restore()
        return Event.DONE

    def _clean_up(self) -> None:
        """Keep what serves, what it can go back to and what was wished; remove the rest."""
        pointer = self._slots.pointer()
        keep = {digest for digest in (pointer.active, pointer.previous) if digest}
        if self.entry.desired is not None:
            keep |= {ref.digest for ref in _releases(self.entry.desired)}
        self._slots.collect(keep)
        self._loaded = {digest: self._loaded[digest] for digest in keep & self._loaded.keys()}

    # What serves.

    async def _restore(self) -> None:
        """Serve what the pointer names, or the previous release where that cannot be loaded."""
        pointer = self._slots.pointer()
        for digest in (pointer.active, pointer.previous):
            if digest is None or not self._slots.has(digest):
                continue
            try:
                release = await asyncio.to_thread(self._open, digest)
            except SerinusError as error:
                self.entry = msgspec.structs.replace(self.entry, reason=str(error)[:500])
                continue
            if digest != pointer.active:
                self._slots.switch(Pointer(active=digest, previous=None))
            desired = self.entry.desired
            if desired is not None and desired.active == release.ref:
                await self._restore_shadow(desired)
                self._serve(desired)
            else:
                self._server.set_shadow(None)
                self._server.set_active(release, "incumbent", None)
            return
        self._server.set_shadow(None)
        self._server.set_active(None, "incumbent", None)

    async def _restore_shadow(self, desired: DesiredState) -> None:
        """Load the wished shadow again; without it the active release serves all the same."""
        if desired.shadow is None or not self._slots.has(desired.shadow.digest):
            return
        try:
            await asyncio.to_thread(self._open, desired.shadow.digest)
        except SerinusError as error:
            self.entry = msgspec.structs.replace(self.entry, reason=str(error)[:500])

    def _serve(self, desired: DesiredState) -> None:
        """Give the wished roles to the releases that are loaded."""
        active = self._loaded.get(desired.active.digest) if desired.active else None
        shadow = self._loaded.get(desired.shadow.digest) if desired.shadow else None
        self._server.set_shadow(None)
        self._server.set_active(active, desired.arm, desired.rollout)
        self._server.set_shadow(shadow)

    def _serves(self, ref: ReleaseRef) -> bool:
        return ref in (
            self._server.active.ref if self._server.active else None,
            self._server.shadow.ref if self._server.shadow else None,
        )

    def _load(self, ref: ReleaseRef) -> LoadedRelease:
        return self._open(ref.digest)

    def _open(self, digest: str) -> LoadedRelease:
        if digest not in self._loaded:
            self._loaded[digest] = LoadedRelease.open(self._slots.path(digest), self._target)
        return self._loaded[digest]


def self_test(release: LoadedRelease) -> None:
    """Replay the bundle's golden vectors through the real evaluator and runtime.

    Raises:
        SerinusError: this device does not compute what the bundle recorded.
    """
    golden = release.golden()
    evaluator = release.evaluator
    features = evaluator.evaluate(evaluator.quantise(golden.samples))
    logits = release.logits(golden.samples, features)
    problem = health.golden_problem(golden, features, logits, release.variant.tolerance)
    if problem:
        raise SerinusError(f"self-test of {release.ref.name} failed: {problem}")


def _releases(desired: DesiredState) -> list[ReleaseRef]:
    return [ref for ref in (desired.active, desired.shadow) if ref is not None]
