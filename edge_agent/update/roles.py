"""Which releases are loaded, which of them answers or runs in the shadow, and what to go back to.

Reads the journal's entry and never writes it.
"""

import asyncio
import contextlib
from collections.abc import Collection

import msgspec

from edge_agent import process_memory
from edge_agent.allocator import give_back
from edge_agent.heartbeat import Heartbeat
from edge_agent.inference import session as sessions
from edge_agent.ports import Server
from edge_agent.serving.release import LoadedRelease
from edge_agent.update.fetching import check_slot
from edge_agent.update.journal import Entry
from edge_agent.update.slots import Pointer, Slots
from edge_core.bundle import folder as folders
from edge_core.errors import InvalidBundle, NoDisk, SerinusError, quoted
from edge_core.messages.deployment import DesiredState
from edge_core.release import ReleaseRef


class Roles:
    """Opens releases from their slots and gives them their roles in the server."""

    def __init__(self, slots: Slots, server: Server, target: str, opening: Heartbeat) -> None:
        self._slots = slots
        self._server = server
        self._target = target
        self._opening = opening
        self._loaded: dict[str, LoadedRelease] = {}
        self._broken: set[str] = set()
        self._memory: dict[str, int] = {}

    def loaded(self, ref: ReleaseRef | None) -> LoadedRelease | None:
        """The release, if it was opened already."""
        return self._loaded.get(ref.digest) if ref else None

    def holds(self, ref: ReleaseRef) -> bool:
        """Whether the release answers or runs in the shadow now, and is on the disk as well.

        A shadow whose successor was refused goes on in memory after its slot was removed.
        """
        # Without its model it is not in memory as a whole.
        there = self._slots.has(ref.digest) and ref.digest in self._loaded
        return there and ref in (
            self._server.active.ref if self._server.active else None,
            self._server.shadow.ref if self._server.shadow else None,
        )

    def keep(self, digests: Collection[str]) -> None:
        """Let go of every other release in memory."""
        let_go = len(self._loaded)
        self._loaded = {d: r for d, r in self._loaded.items() if d in digests}
        if len(self._loaded) < let_go:
            give_back()  # what a session held lies scattered, and would add up over many updates
        self._memory = {d: m for d, m in self._memory.items() if d in digests}
        self._broken.intersection_update(digests)

    def memory(self, ref: ReleaseRef) -> int | None:
        """Bytes that the process grew by when the release was opened, its runtime left out.

        None where the kernel does not tell.
        """
        return self._memory.get(ref.digest)

    async def open(self, digest: str) -> LoadedRelease:
        """Load a release once.

        Raises:
            NoDisk: its files were damaged on this device, which is no fault of the release.
            SerinusError: it does not load here.
        """
        try:
            release = await asyncio.to_thread(self._open, digest)
        except SerinusError:
            self._broken.add(digest)
            raise
        self._broken.discard(digest)
        return release

    def _open(self, digest: str) -> LoadedRelease:
        if digest not in self._loaded:
            self._check(digest)
            try:
                with self._opening:
                    self._loaded[digest] = self._measured(digest)
            except OSError:
                raise
            except Exception as error:  # a runtime's own errors share no base class
                if isinstance(error, SerinusError):
                    raise
                kind = type(error).__name__
                raise InvalidBundle(
                    f"{digest[:12]} does not load: {kind}: {quoted(error)}"
                ) from error
        return self._loaded[digest]

    def _measured(self, digest: str) -> LoadedRelease:
        folder = self._slots.path(digest)
        sessions.load_runtime(folders.read(folder).variant(self._target))
        before = process_memory.held_bytes()
        release = LoadedRelease.open(folder, self._target)
        after = process_memory.held_bytes()
        if before is not None and after is not None:
            self._memory[digest] = max(0, after - before)
        return release

    def _check(self, digest: str) -> None:
        """Refuse bytes that changed since they were fetched, also where they would still load."""
        try:
            check_slot(self._slots.path(digest), digest, self._target)
        except InvalidBundle as damage:
            raise NoDisk(f"release {digest[:12]} is damaged on this device: {damage}") from damage

    def _there(self, digest: str | None) -> bool:
        return digest is not None and self._slots.has(digest) and digest not in self._broken

    def _pointer(self, entry: Entry) -> Pointer:
        """What the pointer names, or, where it is lost, what the journal and the slots tell."""
        pointer = self._slots.pointer()
        if pointer is not None:
            return pointer
        desired = entry.desired
        wished = {ref.digest for ref in (desired.active, desired.shadow) if ref} if desired else ()
        # Only these states say that the wished release passed its self-test.
        tested = desired is not None and entry.state in ("probation", "committed")
        last = desired.active if desired is not None and tested else None
        known = (entry.proven, last.digest if last else None)
        active = next((digest for digest in known if self._there(digest)), None)
        others = [d for d in self._slots.digests() if d != active and d not in wished]
        # Of a release that is neither wished nor proven only the previous one is kept.
        return Pointer(active=active, previous=others[0] if len(others) == 1 else None)

    def _mend_pointer(self, pointer: Pointer, active: str) -> None:
        """Write a lost pointer again, as far as the disk allows."""
        with contextlib.suppress(OSError):
            if self._slots.pointer() is None:
                previous = pointer.previous if pointer.previous != active else None
                self._slots.switch(Pointer(active=active, previous=previous))

    def activate(self, entry: Entry) -> bool:
        """Name the wished release and let it serve; false where it was named already."""
        desired = entry.desired
        assert desired is not None, "only a wish leads here"
        before = self._pointer(entry)
        wanted = desired.active.digest if desired.active else None
        switched = before.active != wanted
        if switched or self._slots.pointer() is None:
            # A release on trial is nothing to go back to while a proven one is there.
            good = (entry.proven, before.active, before.previous)
            there = (digest for digest in good if digest != wanted and self._there(digest))
            self._slots.switch(Pointer(active=wanted, previous=next(there, None)))
        self._server.set_shadow(None)
        active, shadow = self.loaded(desired.active), self.loaded(desired.shadow)
        self._server.set_active(active, desired.arm, desired.rollout)
        self._server.set_shadow(shadow)
        return switched

    def previous(self) -> ReleaseRef | None:
        """The release to go back to, as far as the disk tells now."""
        try:
            pointer = self._slots.pointer()
        except OSError:
            return None
        return self.ref_of(pointer.previous) if pointer and pointer.previous else None

    @staticmethod
    def blamed(entry: Entry) -> ReleaseRef | None:
        """The release that too many starts in the entry's state speak against."""
        desired = entry.desired
        if desired is None or entry.state == "committed":
            return desired.shadow if desired else None
        proven = desired.active is None or desired.active.digest == entry.proven
        if proven and entry.state in ("verifying", "self_testing", "shadowing"):
            return desired.shadow
        return desired.active

    def ending(self, entry: Entry) -> str | None:
        """Digest of the release whose model ends the process, if starts in any state count."""
        active = self._pointer(entry).active
        return None if active == entry.without_model else active

    def ref_of(self, digest: str) -> ReleaseRef | None:
        """What a digest is called, as far as the disk tells now."""
        try:
            return folders.ref(self._slots.path(digest))
        except (OSError, SerinusError):
            return None

    def suspect(self, entry: Entry) -> str | None:
        """Digest of the release that has to go where an update is given up."""
        if entry.suspect is not None:
            return entry.suspect
        if entry.desired is not None:
            return entry.desired.active.digest if entry.desired.active else None
        # The journal is lost, so nobody knows whether the active release was ever proven.
        pointer = self._pointer(entry)
        return pointer.active if pointer.previous else None

    def go_back(self, entry: Entry) -> Entry:
        """Name the previous release instead of the suspect; returns what holds then.

        A suspect that ended the process, and that nothing can follow, stays without its model.
        """
        pointer, suspect = self._pointer(entry), self.suspect(entry)
        if suspect is None or pointer.active != suspect:
            return entry
        proven = None if suspect == entry.proven else entry.proven
        if pointer.previous is None and entry.suspect is not None:
            return msgspec.structs.replace(entry, proven=proven, without_model=suspect)
        if pointer.previous is None and suspect == entry.proven:
            return entry  # it cannot serve now, but there is nothing else
        self._slots.switch(Pointer(active=pointer.previous, previous=None))
        return msgspec.structs.replace(entry, proven=proven)

    async def leave_trial(self, entry: Entry, wanted: DesiredState | None) -> None:
        """Go back to the proven release where a newer wish ends another one's trial.

        Otherwise a release that nobody judges, nor counts the starts of, would serve on while
        the newer one is fetched, and for good where that one is refused.
        """
        wished = wanted.active.digest if wanted and wanted.active else None
        active, proven = self._pointer(entry).active, entry.proven
        if active in (None, proven, wished) or proven is None or not self._there(proven):
            return
        try:
            release = await self.open(proven)
        except SerinusError:
            return
        self._slots.switch(Pointer(active=proven))
        self._server.set_shadow(None)
        self._server.set_active(release, "incumbent", None)

    def last_resort(self, entry: Entry) -> str | None:
        """Digest of the release whose fallback answers where no model lets the agent live."""
        pointer = self._pointer(entry)
        return pointer.active or pointer.previous

    async def restore(self, entry: Entry, *, avoid: str | None) -> tuple[SerinusError | None, str]:
        """Serve what the pointer names, or the previous release where that cannot be loaded.

        Returns what is wrong with the wished release where the pointer names it and it cannot
        be loaded, and what a person should know.
        """
        pointer, desired = self._pointer(entry), entry.desired
        lost, reason = None, ""
        for digest in (pointer.active, pointer.previous):
            if digest is None or (digest == avoid and digest != entry.without_model):
                continue
            try:
                if digest == entry.without_model:
                    release = await asyncio.to_thread(self._open_without_model, digest)
                else:
                    release = await self.open(digest)
            except SerinusError as error:
                reason = str(error)
                if desired and desired.active and desired.active.digest == digest:
                    lost = error
                continue
            self._mend_pointer(pointer, digest)
            self._server.set_shadow(None)
            if desired is not None and desired.active == release.ref:
                self._server.set_active(release, desired.arm, desired.rollout)
                reason = await self._restore_shadow(entry) or reason
            else:
                self._server.set_active(release, "incumbent", None)
            return lost, reason
        self._serve_nothing()
        return lost, reason

    def _open_without_model(self, digest: str) -> LoadedRelease:
        return LoadedRelease.open_without_model(self._slots.path(digest), self._target)

    async def _restore_shadow(self, entry: Entry) -> str:
        """Load the wished shadow again; without it the active release serves all the same."""
        shadow = entry.desired.shadow if entry.desired else None
        # Only these states say that the shadow passed its self-test.
        tested = entry.state in ("probation", "committed")
        if not tested or shadow is None or not self._there(shadow.digest):
            return ""
        try:
            self._server.set_shadow(await self.open(shadow.digest))
        except SerinusError as error:
            return str(error)
        return ""

    def _serve_nothing(self) -> None:
        self._server.set_shadow(None)
        self._server.set_active(None, "incumbent", None)
