"""The clock at 1970 and at 2038, before an update and in the middle of it.

The clock that a program reads cannot be set for one process: ``time.time``, ``time.time_ns`` and
the ``datetime`` that python-tuf reads are replaced in the agent's process.
"""

import datetime
import time
from collections.abc import Callable
from pathlib import Path

import tuf.ngclient._internal.trusted_metadata_set as trusted

from edge_agent.update.slots import Slots
from tests.faults.case import Case, Site
from tests.faults.device import Fault

YEARS = {"1970": 0, "1971": 31_536_000, "2037": 2_145_916_800, "2038": 2_147_483_648 + 3600}
"""Seconds since 1970 that the clock stands at; the last is past what 31 bits hold."""
WHEN = ("from_start", "from_download", "back_and_forth")


def replace(shift: Callable[[], float]) -> None:
    """Let every clock of this process be wrong by so many seconds."""
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + shift()
    time.time_ns = lambda: real_ns() + int(shift() * 1_000_000_000)

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Clock":
            return cls.fromtimestamp(time.time(), tz)

    trusted.datetime = _Module(Clock)  # type: ignore[attr-defined]


class _Module:
    """What python-tuf uses of the module ``datetime``."""

    def __init__(self, clock: type[datetime.datetime]) -> None:
        self.datetime = clock
        self.timezone = datetime.timezone
        self.timedelta = datetime.timedelta


def _shift(when: str, seconds: int, turned: Path) -> Callable[[], float]:
    amount = seconds - time.time()

    def shift() -> float:
        if when == "from_start":
            return amount
        return amount if turned.exists() else 0.0

    return shift


def _points(site: Site) -> list[str]:
    return site.some([f"{year}-{when}" for year in YEARS for when in WHEN], 4)


def _run(site: Site, point: str) -> None:
    year, when = point.split("-", 1)
    stage, late = site.stage, int(year) > 2026
    with site.device(before="one", window=0.1) as device:
        turned = device.folder / "turned"
        device.start(lambda: replace(_shift(when, YEARS[year], turned)))
        device.served_by([stage.old])
        if when == "from_download":
            turned.touch()
        device.want(stage.new)
        if when == "back_and_forth":
            for _ in range(10):
                turned.touch()
                device.fleet.pump(0.02)
                turned.unlink()
                device.fleet.pump(0.02)
        device.rests_or_gives_up(stage.new)
        said = device.truthful()
        if late and when != "back_and_forth":
            # By this clock nothing is fresh, so nothing new may be trusted; and that is the
            # clock's fault or the list's, not the release's.
            if said.active != stage.old or "expired" not in said.reason:
                raise Fault(f"{said.active} serves: {said.reason}")
            if said.refusals:
                raise Fault(f"the release is blamed for the clock: {said.refusals}")
        elif when != "back_and_forth" and said.active != stage.new:
            raise Fault(f"the update failed: {said.reason}")
        device.agent.stop()
        device.start()
        device.served_by([stage.old, stage.new])
        if not device.holds(stage.new):
            device.want(stage.new)
        device.committed(stage.new)
        device.truthful()
        if Slots(device.state).pointer() is None:
            raise Fault("the pointer is gone")


CASES = [Case(name="clock", what="a clock in 1970 and 2038", points=_points, run=_run)]
