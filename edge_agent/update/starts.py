"""Counts starts of the process, so that what ends it again and again is found. See the table."""

import contextlib

import msgspec

from edge_agent.update import transitions
from edge_agent.update.journal import Entry, Journal


class Starts:
    """Keeps the journal's two counts.

    Where something new is tried, each state counts its own starts, and that is what is to blame. In
    all other states starts without a healthy while in between speak against what serves.
    """

    def __init__(self, journal: Journal, max_starts: int) -> None:
        self._journal = journal
        self._max_starts = max_starts
        self._counted = self._unhealthy = 0

    def count(self, entry: Entry) -> Entry:
        """Write down that the process starts, before anything can end it again."""
        alone = entry.desired is None or entry.desired.shadow is None
        counted = transitions.counts(entry.state) and not (entry.state == "committed" and alone)
        if entry.state not in transitions.ON_RESTART:
            return entry  # what nobody knows is not written over before it is left
        self._counted, self._unhealthy = int(counted), int(not counted)
        entry = msgspec.structs.replace(
            entry,
            starts=entry.starts + self._counted,
            unhealthy_starts=entry.unhealthy_starts + self._unhealthy,
        )
        self._write(entry)
        return entry

    def crashing(self, entry: Entry) -> bool:
        """Whether the process started too often without a healthy while in between."""
        return entry.unhealthy_starts > self._max_starts

    def healthy(self, entry: Entry) -> Entry:
        """The process ran for a while; a state in which an update works keeps its own count."""
        resting = transitions.ON_RESTART.get(transitions.known(entry.state)) is None
        entry = msgspec.structs.replace(
            entry, unhealthy_starts=0, starts=0 if resting else entry.starts
        )
        self._write(entry)
        return entry

    def stopped(self) -> None:
        """The process is told to stop: this start was none that anything ended."""
        entry = self._journal.read()
        if entry.state not in transitions.ON_RESTART:
            return
        self._write(
            msgspec.structs.replace(
                entry,
                starts=max(0, entry.starts - self._counted),
                unhealthy_starts=max(0, entry.unhealthy_starts - self._unhealthy),
            )
        )

    def _write(self, entry: Entry) -> None:
        # A full disk must not keep the device from serving; then one count is wrong.
        with contextlib.suppress(OSError):
            self._journal.write(entry)
