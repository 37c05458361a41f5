"""Counts starts of the process, so that what ends it again and again is found. See the table."""

import contextlib

import msgspec

from edge_agent.update import transitions
from edge_agent.update.journal import Entry, Journal

MOST_POWER_CUTS = 10
"""Starts after the machine went down that speak against nothing. A release may take the machine
with it, by its driver or a watchdog in hardware, so there is an end."""


class Starts:
    """Keeps the journal's two counts.

    Where something new is tried, each state counts its own starts, and that is what is to blame. In
    all other states starts without a healthy while in between speak against what serves. A start
    after the machine went down is not counted, some times: nobody unplugs a process.
    """

    def __init__(self, journal: Journal, max_starts: int, boot: str = "") -> None:
        """Count in a journal; ``boot`` names this run of the machine, empty where unknown."""
        self._journal = journal
        self._max_starts = max_starts
        self._boot = boot
        self._counted = self._unhealthy = self._cut = 0

    def count(self, entry: Entry) -> Entry:
        """Write down that the process starts, before anything can end it again."""
        alone = entry.desired is None or entry.desired.shadow is None
        counted = transitions.counts(entry.state) and not (entry.state == "committed" and alone)
        if entry.state not in transitions.ON_RESTART:
            return entry  # what nobody knows is not written over before it is left
        self._cut = int(self._went_down(entry) and entry.power_cuts < MOST_POWER_CUTS)
        self._counted = int(counted and not self._cut)
        self._unhealthy = int(not counted and not self._cut)
        entry = msgspec.structs.replace(
            entry,
            starts=entry.starts + self._counted,
            unhealthy_starts=entry.unhealthy_starts + self._unhealthy,
            power_cuts=entry.power_cuts + self._cut,
            boot=self._boot,
        )
        self._write(entry)
        return entry

    def _went_down(self, entry: Entry) -> bool:
        """Whether the machine started since the process last did; false where nobody knows."""
        return bool(self._boot and entry.boot) and self._boot != entry.boot

    def crashing(self, entry: Entry) -> bool:
        """Whether the process started too often without a healthy while in between."""
        return entry.unhealthy_starts > self._max_starts

    def healthy(self, entry: Entry) -> Entry:
        """The process ran for a while; a state in which an update works keeps its own count."""
        resting = transitions.ON_RESTART.get(transitions.known(entry.state)) is None
        entry = msgspec.structs.replace(
            entry,
            unhealthy_starts=0,
            starts=0 if resting else entry.starts,
            power_cuts=0 if resting else entry.power_cuts,
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
                power_cuts=max(0, entry.power_cuts - self._cut),
            )
        )

    def _write(self, entry: Entry) -> None:
        # A full disk must not keep the device from serving; then one count is wrong.
        with contextlib.suppress(OSError):
            self._journal.write(entry)
