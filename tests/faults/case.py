"""What a fault test is made of: a name, points that can be told one by one, and what happens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.device import Device, copied
from tests.faults.fleet import Fleet
from tests.faults.stage import Stage


class NotHere(Exception):
    """This machine does not allow what the case needs; the text says what."""


class Site:
    """Where one worker lets faults happen."""

    def __init__(self, stage: Stage, folder: Path, label: str, *, quick: bool) -> None:
        self.stage = stage
        self._label = label
        self.folder = folder
        self.quick = quick
        """Whether only a part of the points is wished."""
        folder.mkdir(parents=True, exist_ok=True)
        self.fleet = Fleet(stage.mqtt_port, f"fleet-{label}")
        self._devices = 0

    def device(self, *, before: str = "", url: str = "", **settings: float) -> Device:
        """A device; ``before`` names a state folder of the stage to begin with."""
        self._devices += 1
        name = f"{self._label}-{self._devices}"
        folder = self.folder / str(self._devices)  # short: a socket's path has 107 bytes
        device = Device(self.stage, self.fleet, folder, name, url=url, **settings)  # type: ignore[arg-type]
        if before:
            copied(self.stage.folder / before, device.state)
            device.revision = 10
        return device

    def some(self, points: Sequence[str], quick: int) -> list[str]:
        """All points, or about so many of them, evenly spread, in a quick run."""
        if not self.quick or len(points) <= quick:
            return list(points)
        return [points[round(i * (len(points) - 1) / (quick - 1))] for i in range(quick)]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kind of fault."""

    name: str
    what: str
    points: Callable[[Site], list[str]]
    """All points, told by a recording where they are many."""
    run: Callable[[Site, str], None]
    """Let the fault happen at one point; raises where it is not survived."""


def prepare(site: Site) -> None:
    """Make the state folders that points begin with."""
    stage = site.stage
    with site.device() as device:
        device.start()
        device.want(stage.old)
        device.committed(stage.old)
        device.truthful()
        device.agent.stop()
        copied(device.state, stage.folder / "one")
        device.start()
        device.want(stage.new)
        device.committed(stage.new)
        device.truthful()
        device.agent.stop()
        copied(device.state, stage.folder / "two")
