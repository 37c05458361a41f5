"""Performs the table's actions: fetch, verify, self-test, shadow, activate, watch, recover.

The journal is written before each action, so a power cut at any instruction leaves either the
old or the new release serving, and the next start goes on from the journal.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

import msgspec

from edge_agent.config import Update
from edge_agent.ports import ApprovedReleases, Clock, Server
from edge_agent.update import health, transitions
from edge_agent.update.fetching import Fetcher
from edge_agent.update.journal import Entry, Journal
from edge_agent.update.roles import Roles
from edge_agent.update.self_test import self_test
from edge_agent.update.slots import Slots
from edge_agent.update.transitions import Action, Event
from edge_core.errors import SerinusError, Unavailable, quoted
from edge_core.messages.deployment import DesiredState
from edge_core.messages.telemetry import Refusal, UpdateState
from edge_core.release import ReleaseRef

POLL_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 60.0
MOST_DOUBLINGS = 16


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
        self._roles = Roles(slots, server, target)
        self._settings = settings
        self._clock = clock
        self._changed = changed
        self._wanted: DesiredState | None = None
        self._wake = asyncio.Event()
        self._restored = False
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

    @property
    def known(self) -> bool:
        """Whether it is settled what this start serves, or why nothing does yet."""
        return self._restored or bool(self._trouble)

    @property
    def previous(self) -> ReleaseRef | None:
        """The release in the other slot, as far as the disk tells now."""
        return self._roles.previous()

    async def run(self) -> None:
        """Serve what the pointer names, finish what the journal began, then follow wishes."""
        self.entry = self._journal.read()
        self._count_start()
        await self._outlasting_the_disk(self._resume)
        while True:
            self._following = False
            await self._rest()
            self._wake.clear()
            self._following = True
            if self._wanted is not None:
                await self._outlasting_the_disk(self._begin)

    def _count_start(self) -> None:
        """Write down that the process starts in this state, before anything can end it again."""
        entry = self.entry
        alone = entry.desired is None or entry.desired.shadow is None
        if not transitions.counts(entry.state) or (entry.state == "committed" and alone):
            return
        self.entry = msgspec.structs.replace(entry, starts=entry.starts + 1)
        with contextlib.suppress(OSError):  # a full disk must not keep the device from serving
            self._journal.write(self.entry)

    async def _rest(self) -> None:
        """Wait for a wish; a shadow that ran long enough is not one that ends the process."""
        if self.entry.starts:
            try:
                async with asyncio.timeout(self._settings.probation_seconds):
                    await self._wake.wait()
            except TimeoutError:
                self.entry = msgspec.structs.replace(self.entry, starts=0)
                with contextlib.suppress(OSError):  # then the next start counts one too many
                    self._journal.write(self.entry)
        await self._wake.wait()

    async def _outlasting_the_disk(self, step: Callable[[], Awaitable[None]]) -> None:
        """Take a step; where the disk is full or fails, serve on and go on when it works again."""
        attempt = 0
        while True:
            try:
                await step()
                self._trouble = ""
                return
            except OSError as error:
                self._hold_up(f"the state folder cannot be written: {error.strerror}")
            step = self._begin if await self._pause(attempt) else self._resume
            attempt += 1

    def _hold_up(self, trouble: str) -> None:
        """Say what is in the way, while it is tried again."""
        if trouble[:500] != self._trouble:
            self._trouble = trouble[:500]
            self._changed()

    async def _resume(self) -> None:
        """Go on from the entry's state, as after a start of the process."""
        state, most = self.entry.state, self._settings.max_starts
        row = transitions.restart(state, self.entry.starts, most)
        exhausted = transitions.exhausted(state, self.entry.starts, most)
        # Where it gives up, what killed the process before is not opened again.
        standing = (
            msgspec.structs.replace(self.entry, state=row.next) if exhausted and row else None
        )
        lost = await self._restore_once(row, standing or self.entry)
        if exhausted:
            error = SerinusError(f"more than {most} starts in {state}")
            self._refuse(self._roles.blamed(self.entry), error)
        elif lost is not None and state in ("probation", "committed"):
            self._refuse(self._desired.active, lost)
            row = transitions.after(self.state, Event.REFUSED)
        if row is None:
            self._journal.write(self.entry)
            self._clean_up()  # the process may have ended in the middle of it
            self._changed()  # what serves is known only now
            return
        await self._follow(row)

    async def _restore_once(self, row: transitions.Row | None, entry: Entry) -> SerinusError | None:
        """Serve what can be served before anything else, with this start's first step only.

        Returns what is wrong with the wished release where the pointer names it and another
        one had to serve.
        """
        if self._restored:
            return None
        lost = None
        if row is None or row.action not in (Action.RECOVER, Action.STAND_DOWN):
            lost = await self._restore(entry, avoid=None)
        elif row.action is Action.RECOVER:
            avoid = None if self.entry.state == "recovering" else self._roles.suspect(entry)
            await self._restore(entry, avoid=avoid)
        self._restored = True
        return lost

    async def _begin(self) -> None:
        self._wake.clear()  # or the next pause would end at once
        await self._restore_once(None, self.entry)
        desired, self._wanted = self._wanted, None
        with contextlib.suppress(OSError):  # a full disk only keeps the trial's release serving
            await self._roles.leave_trial(self.entry, desired)
        row = transitions.after(self.state, Event.DESIRED)
        assert row is not None, "every state takes a new wish"
        self.entry = msgspec.structs.replace(self.entry, desired=desired, reason="", starts=0)
        await self._follow(row)

    async def _follow(self, row: transitions.Row) -> None:
        """Go from row to row until the machine rests or a newer wish is waiting."""
        while True:
            self._enter(row.next)
            action = self._actions.get(row.action)
            if action is None:
                if row.action is Action.STAND_DOWN:
                    self._roles.stand_down()
                self._clean_up()
                return
            event = await action()
            if self._wanted is not None:
                return  # every state takes a new wish; this one need not be finished
            following = transitions.after(row.next, event)
            assert following is not None, f"no row for {event} in {row.next}"
            row = following

    @property
    def _desired(self) -> DesiredState:
        assert self.entry.desired is not None, "only a wish leads to this state"
        return self.entry.desired

    def _enter(self, state: UpdateState) -> None:
        entry = self.entry
        kept = state == entry.state or transitions.begins_again(state)
        proven = entry.proven
        if state == "committed" and entry.desired is not None and entry.desired.active is not None:
            proven = entry.desired.active.digest
        self.entry = msgspec.structs.replace(
            entry, state=state, starts=entry.starts if kept else 0, proven=proven
        )
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
            if self._roles.holds(ref):
                continue
            event = await self._download_one(ref)
            if event is not Event.DONE:
                return event
        return Event.DONE

    async def _download_one(self, ref: ReleaseRef) -> Event:
        for attempt in range(self._settings.max_attempts):
            try:
                await asyncio.to_thread(self._fetcher.fetch, ref)
                self._trouble = ""
                return Event.DONE
            except Unavailable as error:
                failure = error
                self._hold_up(str(error))
            except OSError:
                raise
            except Exception as error:  # nothing that a repository sends may end the agent
                self._slots.discard(ref.digest)
                return self._refuse(ref, _explained(ref, error))
            if await self._pause(attempt):
                self._trouble = ""
                return Event.DESIRED
        self._trouble = ""
        return self._refuse(
            ref, Unavailable(f"{failure} (gave up after {self._settings.max_attempts} attempts)")
        )

    async def _pause(self, attempt: int) -> bool:
        """Wait before another attempt; true when a newer wish came meanwhile."""
        pause = min(
            self._settings.retry_seconds * 2 ** min(attempt, MOST_DOUBLINGS), LONGEST_PAUSE_SECONDS
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause * random.uniform(0.5, 1.0)):  # jitter, not a secret
                await self._wake.wait()
        return self._wanted is not None

    async def _verify(self) -> Event:
        desired = self._desired
        for ref in _releases(desired):
            try:
                await asyncio.to_thread(self._fetcher.complete, ref)
            except OSError:
                raise
            except Exception as error:  # nothing that a bundle holds may end the agent
                self._slots.discard(ref.digest)
                return self._refuse(ref, _explained(ref, error))
        return Event.DONE

    async def _self_test(self) -> Event:
        desired = self._desired
        for ref in _releases(desired):
            try:
                release = await self._roles.open(ref.digest)
                if not self._roles.holds(ref):
                    await asyncio.to_thread(self_test, release)
            except OSError:
                raise
            except Exception as error:  # nothing that a bundle holds may end the agent
                return self._refuse(ref, _explained(ref, error))
        return Event.DONE

    async def _load_shadow(self) -> Event:
        desired = self._desired
        shadow = self._roles.loaded(desired.shadow)
        active = self._roles.loaded(desired.active)
        if shadow is not None and active is not None:
            problem = active.shadow_problem(shadow)
            if problem:
                return self._refuse(shadow.ref, SerinusError(problem))
        self._server.set_shadow(None)
        return Event.DONE

    async def _activate(self) -> Event:
        switched = self._roles.activate(self.entry)
        wanted = self._desired.active
        if wanted is None or (not switched and wanted.digest == self.entry.proven):
            return Event.UNCHANGED
        return Event.DONE

    async def _watch(self) -> Event:
        desired = self._desired
        limits = health.Limits(
            seconds=self._settings.probation_seconds,
            rows=self._settings.probation_rows,
            max_error_share=self._settings.max_error_share,
        )
        started = self._clock.monotonic()
        while self._wanted is None:
            active = self._server.active
            if active is None or active.ref != desired.active:
                return self._refuse(None, SerinusError("another release serves than the wished"))
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
        proven = self._roles.go_back(self.entry)
        if not self.entry.reason:
            self._refuse(None, SerinusError("the update stood in a state that nobody knows"))
        self.entry = msgspec.structs.replace(self.entry, proven=proven)
        await self._restore(self.entry, avoid=None)
        return Event.DONE

    def _clean_up(self) -> None:
        """Keep what serves, what it can go back to and what was wished; remove the rest."""
        pointer = self._slots.pointer()
        if pointer is None:
            return  # nobody knows what else it named
        keep = {d for d in (pointer.active, pointer.previous, self.entry.proven) if d}
        if self.entry.desired is not None:
            keep |= {ref.digest for ref in _releases(self.entry.desired)}
        self._slots.collect(keep)
        self._fetcher.clean()
        self._roles.keep(keep)

    async def _restore(self, entry: Entry, *, avoid: str | None) -> SerinusError | None:
        lost, reason = await self._roles.restore(entry, avoid=avoid)
        if reason:
            self.entry = msgspec.structs.replace(self.entry, reason=reason[:500])
        return lost


def _explained(ref: ReleaseRef, error: Exception) -> SerinusError:
    if isinstance(error, SerinusError):
        return error
    return SerinusError(f"{ref.name} fails here: {type(error).__name__}: {quoted(error)}")


def _releases(desired: DesiredState) -> list[ReleaseRef]:
    return [ref for ref in (desired.active, desired.shadow) if ref is not None]
