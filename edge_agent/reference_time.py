"""What time it is at least, whatever the wall clock says: so that a clock set back frees no list.

The floor rises with the time that passes here, and to the wall clock only where metadata were fresh
by that clock: a wrong clock can push it no further than the end of what real keys signed.
"""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import msgspec

from edge_agent.floor_file import MAX_MS, FloorFile, StoredFloor

BEHIND_MS = 3_600_000
"""By how much a clock may be behind before the device speaks of it."""
COUNTED, OF = 9, 10
"""Share of the time that passes by which a floor rises: nine of ten. After a clock that was ahead
once, the floor would otherwise stay ahead for ever; so the true time catches up with it after ten
times as long, and the end of a list is noticed a ninth of what was left of it late at most."""

log = logging.getLogger(__name__)


class MachineClock(Protocol):
    """The wall clock, and one that nobody sets."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        ...

    def since_boot_ms(self) -> int:
        """Milliseconds since the machine started, sleep included where the system counts it."""
        ...


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of both clocks."""

    wall_ms: int
    since_boot_ms: int


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """A time that was reached, and when in this run of the machine that was known."""

    at_ms: int
    """Milliseconds since 1970, UTC."""
    since_boot_ms: int


def reached(floor: Floor, moment: Moment) -> int:
    """The time that is reached at least by what has passed since the floor was taken, in ms."""
    passed = max(0, moment.since_boot_ms - floor.since_boot_ms)
    return min(floor.at_ms + passed * COUNTED // OF, MAX_MS)


def reference(floor: Floor, moment: Moment) -> int:
    """The time by which lists end: the wall clock's, or what is reached where that is later."""
    return min(max(moment.wall_ms, reached(floor, moment)), MAX_MS)


def raised(floor: Floor, moment: Moment, *, accepted: bool) -> Floor:
    """The next floor; ``accepted`` where metadata are fresh by the wall clock of this moment."""
    at_ms = reference(floor, moment) if accepted else reached(floor, moment)
    return Floor(at_ms=at_ms, since_boot_ms=moment.since_boot_ms)


def recalled(stored: StoredFloor | None, boot: str, moment: Moment) -> Floor:
    """The floor to begin with.

    After a restart of the machine nobody knows how long it was off, and another machine may have
    taken the folder over: then time passes from now on only.
    """
    if stored is None:
        return Floor(at_ms=0, since_boot_ms=moment.since_boot_ms)
    same = bool(boot) and stored.boot == boot
    since = stored.since_boot_ms if same else moment.since_boot_ms
    return Floor(at_ms=stored.at_ms, since_boot_ms=since)


def is_behind(floor: Floor, moment: Moment) -> bool:
    """Whether the wall clock is well before what is reached."""
    return reached(floor, moment) - moment.wall_ms > BEHIND_MS


class ReferenceTime:
    """The reference time of one state folder; kept over restarts.

    One thread raises the floor, any may read it.
    """

    def __init__(self, folder: Path, clock: MachineClock, boot: str) -> None:
        """Read the floor; ``boot`` names this run of the machine, empty where unknown."""
        self._file = FloorFile(folder)
        self._clock = clock
        self._boot = boot
        self._floor = recalled(self._file.read(), boot, self.moment())
        self._trouble = ""

    def moment(self) -> Moment:
        """Read both clocks."""
        return Moment(wall_ms=self._clock.now_ms(), since_boot_ms=self._clock.since_boot_ms())

    def at(self, moment: Moment) -> datetime:
        """The reference time."""
        return _utc(reference(self._floor, moment))

    def keep(self, moment: Moment, *, accepted: bool) -> None:
        """Raise the floor and store it; ``accepted`` as in :func:`raised`."""
        self._floor = floor = raised(self._floor, moment, accepted=accepted)
        stored = StoredFloor(
            at_ms=floor.at_ms, boot=self._boot, since_boot_ms=max(0, floor.since_boot_ms)
        )
        try:
            self._file.write(stored)
        except OSError as error:  # it holds until the process ends, and is stored next time
            log.warning("the reference time cannot be stored: %s", error.strerror)

    @property
    def trouble(self) -> str:
        """What is wrong with the wall clock, as it was first seen; empty where nothing is."""
        moment = self.moment()
        if not is_behind(self._floor, moment):
            self._trouble = ""
        elif not self._trouble:
            wall, least = _said(moment.wall_ms), _said(reached(self._floor, moment))
            self._trouble = (
                f"the clock said {wall} when it was {least} at least: set the clock (time server, "
                "battery); until then lists end by the time that passes here"
            )
            log.error("%s", self._trouble)
        return self._trouble


def _utc(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _said(at_ms: int) -> str:
    return f"{_utc(at_ms):%Y-%m-%d %H:%M}Z"
