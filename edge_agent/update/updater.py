"""Performs the table's actions: fetch, verify, self-test, shadow, activate, watch, recover.

The journal is written before each action, so a power cut at any instruction leaves either the
old or the new release serving, and the next start goes on from the journal.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import msgspec

from edge_agent.config import Update
from edge_agent.heartbeat import Heartbeat
from edge_agent.ports import ApprovedReleases, Behaviour, Clock, Server
from edge_agent.serving.release import LoadedRelease
from edge_agent.update import transitions
from edge_agent.update.downloading import Downloads
from edge_agent.update.fetching import Fetcher
from edge_agent.update.journal import Entry, Journal
from edge_agent.update.roles import Roles
from edge_agent.update.self_test import self_test
from edge_agent.update.slots import Slots
from edge_agent.update.starts import Starts
from edge_agent.update.transitions import Action, Event
from edge_agent.update.trial import TrialWatch
from edge_agent.update.wishes import Wishes
from edge_core.errors import NoDisk, SerinusError, Unavailable, quoted
from edge_core.messages.deployment import DesiredState
from edge_core.messages.telemetry import Probation, Refusal, UpdateState
from edge_core.release import ReleaseRef

POLL_SECONDS = 0.1
MAX_REASON = 500

log = logging.getLogger(__name__)


class Updater:
    """Moves one device from what it runs to what it should run."""

    def __init__(
        self,
        *,
        journal: Journal,
        slots: Slots,
        repository: ApprovedReleases,
        server: Server,
        behaviour: Behaviour,
        target: str,
        settings: Update,
        clock: Clock,
        changed: Callable[[], None],
        boot: str = "",
    ) -> None:
        self._journal = journal
        self._slots = slots
        self._fetcher = Fetcher(repository, slots, target, quota_bytes=settings.quota_bytes)
        self._server = server
        self._behaviour = behaviour
        self.opening = Heartbeat("opening a model")
        """Busy while a model is being opened or tried, for a watchdog."""
        self._roles = Roles(slots, server, target, self.opening)
        self._settings = settings
        self._clock = clock
        self._changed = changed
        self._wishes = Wishes()
        self._downloads = Downloads(
            self._fetcher,
            self._wishes,
            attempts=settings.max_attempts,
            first_pause=settings.retry_seconds,
            held_up=self._hold_up,
        )
        self._starts = Starts(journal, settings.max_starts, boot)
        self._trial: TrialWatch | None = None
        self._restored = False
        self.entry = Entry()
        self._held_up: Unavailable | None = None
        """What is in the way now, while it is tried again."""
        self._lacked_disk = False
        """Whether the device itself was at fault in the latest refusal."""
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
        """Take the server's newest wish; an older one under way ends at its next step.

        The same wish again may bring the server's confirmation, and nothing else.
        """
        self._wishes.want(desired, self.entry.desired)
        if self._trial is not None and self._wishes.confirmed(self._desired.revision):
            self._keep_confirmation()

    def _keep_confirmation(self) -> None:
        """Remember the server's word over a restart, after which it may be out of reach."""
        if not self._desired.confirmed:
            desired = msgspec.structs.replace(self._desired, confirmed=True)
            self.entry = msgspec.structs.replace(self.entry, desired=desired)
            with contextlib.suppress(OSError):  # then it is heard again, or not kept
                self._journal.write(self.entry)

    @property
    def state(self) -> UpdateState:
        """The state of the update; one that nobody knows is being recovered."""
        return transitions.known(self.entry.state)

    @property
    def reason(self) -> str:
        """Why the update stands where it does: what holds it up now, or how it ended."""
        return self.entry.reason if self._held_up is None else str(self._held_up)[:MAX_REASON]

    @property
    def trouble(self) -> str:
        """How the device's own disk keeps an update from its end; empty where it does not."""
        if self._held_up is not None:
            return self.reason if isinstance(self._held_up, NoDisk) else ""
        return self.reason if self._lacked_disk and self.state == "failed" else ""

    @property
    def busy(self) -> bool:
        """Whether a wish is waiting or being followed."""
        return self._wishes.waiting or self._following

    @property
    def probation(self) -> Probation | None:
        """The trial of the active release, while there is one."""
        return self._trial.reported if self._trial is not None else None

    @property
    def known(self) -> bool:
        """Whether it is settled what this start serves, or why nothing does yet."""
        return self._restored or self._held_up is not None

    @property
    def previous(self) -> ReleaseRef | None:
        """The release in the other slot, as far as the disk tells now."""
        return self._roles.previous()

    async def run(self) -> None:
        """Serve what the pointer names, finish what the journal began, then follow wishes."""
        self.entry = self._starts.count(self._journal.read())
        healthy = asyncio.create_task(self._stay_healthy())
        try:
            await self._outlasting_the_disk(self._resume)
            while True:
                self._following = False
                await self._wishes.arrival()
                self._following = True
                await self._outlasting_the_disk(self._begin)
        except asyncio.CancelledError:
            self._starts.stopped()
            raise
        finally:
            healthy.cancel()

    async def _stay_healthy(self) -> None:
        """Once the process ran for a while, nothing that it runs is one that ends it."""
        await asyncio.sleep(self._settings.probation_seconds)
        self.entry = self._starts.healthy(self.entry)

    async def _outlasting_the_disk(self, step: Callable[[], Awaitable[None]]) -> None:
        """Take a step; where the disk is full or fails, serve on and go on when it works again."""
        attempt = 0
        while True:
            try:
                await step()
                self._held_up = None
                return
            except OSError as error:
                self._hold_up(NoDisk(f"the state folder cannot be written: {error.strerror}"))
            step = self._begin if await self._downloads.pause(attempt) else self._resume
            attempt += 1

    def _hold_up(self, error: Unavailable) -> None:
        """Say what is in the way, while it is tried again."""
        known, self._held_up = str(self._held_up), error
        if str(error) != known:
            self._changed()

    async def _resume(self) -> None:
        """Go on from the entry's state, as after a start of the process."""
        state, most = self.entry.state, self._settings.max_starts
        crashing = self._crashing()
        row = transitions.restart(state, self.entry.starts, most, crashing=crashing)
        exhausted = transitions.exhausted(state, self.entry.starts, most)
        if exhausted and row is not None:
            error = SerinusError(f"more than {most} starts in {state}")
            self._blame(row, self._roles.blamed(self.entry), error)
        elif crashing:
            self._blame_what_serves(most)
        # Where it gives up, what killed the process before is not opened again.
        standing = (
            msgspec.structs.replace(self.entry, state=row.next) if exhausted and row else None
        )
        lost = await self._restore_once(row, standing or self.entry)
        if lost is not None and not exhausted and state in ("probation", "committed"):
            self._refuse(self._desired.active, lost)
            row = transitions.after(self.state, Event.REFUSED)
        if row is None:
            self._journal.write(self.entry)
            self._clean_up()  # the process may have ended in the middle of it
            self._changed()  # what serves is known only now
            return
        await self._follow(row)

    def _crashing(self) -> bool:
        """Whether what serves has to go, since it ends the process in whichever state."""
        return (
            self._starts.crashing(self.entry)
            and transitions.after(self.state, Event.CRASHING) is not None
            and self._roles.ending(self.entry) is not None
        )

    def _blame(self, row: transitions.Row, ref: ReleaseRef | None, error: SerinusError) -> None:
        """Refuse a release that too many starts speak against, and remember to leave it."""
        self._refuse(ref, error)
        entry = msgspec.structs.replace(self.entry, unhealthy_starts=0)
        if row.action is Action.RECOVER:
            entry = msgspec.structs.replace(entry, suspect=self._roles.suspect(entry))
        elif row.action is Action.STAND_DOWN:
            entry = msgspec.structs.replace(entry, without_model=self._roles.last_resort(entry))
        self.entry = entry

    def _blame_what_serves(self, most: int) -> None:
        """Refuse the release that serves, however long ago it was proven."""
        digest = self._roles.ending(self.entry)
        assert digest is not None, "only a release that serves is blamed"
        ref = self._roles.ref_of(digest)
        name = ref.name if ref is not None else digest[:12]
        error = SerinusError(
            f"{name} ends the process: more than {most} starts without "
            f"{self._settings.probation_seconds:g} s of running in between"
        )
        self._refuse(ref, error)
        self.entry = msgspec.structs.replace(self.entry, suspect=digest, unhealthy_starts=0)

    async def _restore_once(self, row: transitions.Row | None, entry: Entry) -> SerinusError | None:
        """Serve what can be served before anything else, with this start's first step only.

        Returns what is wrong with the wished release where the pointer names it and another
        one had to serve.
        """
        if self._restored:
            return None
        avoid = entry.suspect
        if avoid is None and row is not None and row.action is Action.RECOVER:
            avoid = None if self.entry.state == "recovering" else self._roles.suspect(entry)
        lost = await self._restore(entry, avoid=avoid)
        self._restored = True
        return None if row is not None and row.action is Action.RECOVER else lost

    async def _begin(self) -> None:
        self._wishes.heard()  # or the next pause would end at once
        await self._restore_once(None, self.entry)
        desired = self._wishes.take()
        with contextlib.suppress(OSError):  # a full disk only keeps the trial's release serving
            await self._roles.leave_trial(self.entry, desired)
        row = transitions.after(self.state, Event.DESIRED)
        assert row is not None, "every state takes a new wish"
        self.entry = msgspec.structs.replace(
            self.entry, desired=desired, reason="", starts=0, suspect=None
        )
        await self._follow(row)

    async def _follow(self, row: transitions.Row) -> None:
        """Go from row to row until the machine rests or a newer wish is waiting."""
        while True:
            self._enter(row.next)
            action = self._actions.get(row.action)
            if action is None:
                self._clean_up()
                return
            event = await action()
            if self._wishes.waiting:
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
        reason = str(error)[:MAX_REASON]
        self.entry = msgspec.structs.replace(self.entry, reason=reason)
        self._lacked_disk = isinstance(error, NoDisk)
        if ref is not None and not isinstance(error, Unavailable):
            refusal = Refusal(release=ref, reason=reason, at_ms=self._clock.now_ms())
            self.entry = self.entry.refused(refusal)
        return Event.REFUSED

    # Actions, in the order of the table.

    async def _download(self) -> Event:
        for ref in _releases(self._desired):
            if self._roles.holds(ref):
                continue
            try:
                fetched = await self._downloads.fetch(ref)
                self._held_up = None
                if not fetched:
                    return Event.DESIRED
            except Unavailable as error:
                self._held_up = None
                return self._refuse(ref, error)
            except OSError:
                raise
            except Exception as error:  # nothing that a repository sends may end the agent
                self._slots.discard(ref.digest)
                return self._refuse(ref, _explained(ref, error))
        return Event.DONE

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
                    await asyncio.to_thread(self._try, release)
            except OSError:
                raise
            except Exception as error:  # nothing that a bundle holds may end the agent
                return self._refuse(ref, _explained(ref, error))
        return Event.DONE

    def _try(self, release: LoadedRelease) -> None:
        with self.opening:
            self_test(release, self._roles.memory(release.ref), self.opening.beat)

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
        # Another model is in charge, so what ended the process before says nothing of it.
        model = self.entry.without_model
        self.entry = msgspec.structs.replace(
            self.entry,
            unhealthy_starts=0,
            without_model=None if model == wanted.digest else model,
        )
        return Event.DONE

    async def _watch(self) -> Event:
        desired, release = self._desired, self._server.active
        if release is None or release.ref != desired.active:
            return self._refuse(None, SerinusError("another release serves than the wished"))
        trial = self._trial = TrialWatch(
            server=self._server,
            behaviour=self._behaviour,
            clock=self._clock,
            settings=self._settings,
            release=release,
            before=self._roles.loaded(self._roles.previous()),
            restarts=self.entry.starts,
        )
        try:
            while not self._wishes.waiting:
                event = self._judge(trial, desired)
                if event is not None:
                    return event
                await asyncio.sleep(POLL_SECONDS)
            return Event.DESIRED
        finally:
            self._trial = None

    def _judge(self, trial: TrialWatch, desired: DesiredState) -> Event | None:
        """The device's own verdict, then the server's word where it is asked for."""
        active = self._server.active
        if active is None or active.ref != desired.active:
            return self._refuse(None, SerinusError("another release serves than the wished"))
        verdict, why = trial.judge()
        if verdict == "unhealthy":
            return self._refuse(desired.active, SerinusError(why))
        if verdict == "healthy" and trial.passed(why):
            log.info("%s passed its probation: %s", active.ref.name, why)
            self._changed()
        if not trial.reported.passed:
            return None
        if desired.confirm_seconds is None or desired.confirmed:
            return Event.DONE
        if self._wishes.confirmed(desired.revision):
            return Event.DONE
        if trial.waited() > desired.confirm_seconds:
            # No fault of the release: the device or its way to the server may be the trouble.
            return self._refuse(
                desired.active,
                Unavailable(
                    f"{active.ref.name} passed here ({trial.reported.verdict}), but the server "
                    f"did not confirm it within {desired.confirm_seconds:g} s"
                ),
            )
        return None

    async def _recover(self) -> Event:
        """Go back to the previous release: one pointer switch, no download, no network."""
        entry = self._roles.go_back(self.entry)
        if entry != self.entry:
            self.entry = entry
            self._journal.write(entry)
        if not self.entry.reason:
            self._refuse(None, SerinusError("the update stood in a state that nobody knows"))
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
            self.entry = msgspec.structs.replace(self.entry, reason=reason[:MAX_REASON])
        return lost


def _explained(ref: ReleaseRef, error: Exception) -> SerinusError:
    if isinstance(error, SerinusError):
        return error
    return SerinusError(f"{ref.name} fails here: {type(error).__name__}: {quoted(error)}")


def _releases(desired: DesiredState) -> list[ReleaseRef]:
    return [ref for ref in (desired.active, desired.shadow) if ref is not None]
