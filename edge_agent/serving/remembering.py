"""With which memory a release's features begin: the one before, a stored one, or none."""

import logging
from collections.abc import Mapping
from typing import Literal

import msgspec

from edge_agent.serving.memory import Memory
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.work import Remembered
from edge_core.errors import InvalidInput

MAX_HELD_US = 24 * 3600 * 1_000_000
"""How far a stored memory's time may have been ahead of the clock: one that a wrong clock once took
further would see nothing new until then, over all restarts."""
Beginning = Literal["", "empty", "restored", "went on"]

log = logging.getLogger(__name__)


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What the features of an earlier process remembered."""

    definition: str
    """Sha256 of the feature definition."""
    at_ms: int
    """When it was stored, UTC."""
    parts: Mapping[str, bytes]


class Remembering:
    """The memory of the release that answers, also while none does. On the event loop."""

    def __init__(self, *, tolerates: bool = False) -> None:
        self._tolerates = tolerates
        self._stored: Stored | None = None
        self._memory: Memory | None = None
        self._definition = ""
        self._number = 0
        self.beginning: Beginning = ""
        """How the active release's features began."""
        self.refused = 0
        """Stored memories that could not be used."""

    def offer(self, stored: Stored | None) -> None:
        """Begin the first release with this, where it is of its definition."""
        self._stored = stored

    @property
    def changes(self) -> tuple[int, int]:
        """Which memory of this process it is, and how often that one changed."""
        return self._number, self._memory.changes if self._memory else 0

    @property
    def clock_held(self) -> int:
        """How often the clock was behind what was seen already."""
        return self._memory.clock_held if self._memory else 0

    @property
    def counts(self) -> dict[str, int]:
        """What the memory refused or dropped, by name."""
        return dict(self._memory.counts) if self._memory else {}

    def memory_of(self, release: LoadedRelease) -> Memory:
        """The memory with which a release begins to answer."""
        before, stored = self._memory, self._stored
        # Later releases begin afresh: what was stored before this process is older than they are.
        self._stored = None
        if before is not None and self._definition == release.definition_digest:
            self.beginning = "went on"
            return before
        memory = self._restored(release, stored) if before is None and stored else None
        self.beginning = "restored" if memory is not None else "empty"
        if memory is None:
            if before is not None:
                log.warning(
                    "%s has other features than the release before: they begin without memory",
                    release.ref.name,
                )
            memory = release.begin(tolerates=self._tolerates)
        self._memory, self._definition = memory, release.definition_digest
        self._number += 1
        return memory

    def last(self) -> Remembered | None:
        """What is remembered, once the inference thread has ended."""
        if self._memory is None:
            return None
        return Remembered(self._definition, self._memory.snapshot())

    def refuse(self, reason: str) -> None:
        """Count a stored memory that cannot be used, and say why."""
        self.refused += 1
        log.warning("what features remembered before is lost: %s", reason)

    def _restored(self, release: LoadedRelease, stored: Stored) -> Memory | None:
        if stored.definition != release.definition_digest:
            self.refuse(f"it belongs to other features than those of {release.ref.name}")
            return None
        try:
            memory = release.restore(stored.parts, tolerates=self._tolerates)
        except InvalidInput as error:
            self.refuse(str(error))
            return None
        ahead_us = 0 if memory.now_us is None else memory.now_us - stored.at_ms * 1000
        if ahead_us > MAX_HELD_US:
            self.refuse(
                f"its time was {ahead_us / 3_600_000_000:.0f} hours ahead of the clock when it was "
                "stored, and would stand still for as long"
            )
            return None
        return memory
