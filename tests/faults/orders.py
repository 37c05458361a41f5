"""Wishes that meet an update under way, at every one of its file operations, and installs by hand.

The agent stands still at the operation until the wish was sent, so that both really meet.
"""

import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edge_core.release import ReleaseRef
from tests.faults.case import Case, Site
from tests.faults.device import Device, Fault
from tests.faults.kills import LATER, recorded
from tests.faults.operations import Operation, watch
from tests.simulators.processes import command

WAIT = 0.03
"""How long the operation waits once the wish is at the broker, in seconds."""


def stand_at(number: int, state: Path, folder: Path) -> None:
    """Have this process wait at the numbered operation until it may go on."""
    met = 0

    def meet(operation: Operation) -> None:
        nonlocal met
        met += 1
        if met == number:
            (folder / "stands").touch()
            while not (folder / "go").exists():
                time.sleep(0.002)
            time.sleep(WAIT)

    watch(state, meet)


def _standing(site: Site, point: str, then: Callable[[Device], None]) -> None:
    stage = site.stage
    for _ in range(3):
        with site.device(before="one") as device:
            device.want(stage.new)
            device.start(partial(stand_at, int(point), device.state, device.folder))
            device.fleet.pump(until=partial(_stands_or_ended, device))
            if not (device.folder / "stands").exists():
                device.serves()  # what answers is written down, too
                device.fleet.pump(LATER)
            if not (device.folder / "stands").exists():
                continue  # the order of its threads was another one; again
            then(device)
            return
    raise Fault("the update was over before this operation, three times")


def _stands_or_ended(device: Device) -> bool:
    said = device.reported()
    over = said is not None and said.update == "committed" and said.active == device.stage.new
    return over or (device.folder / "stands").exists()


def _newer(site: Site, point: str) -> None:
    def then(device: Device) -> None:
        _meets(device, site.stage.newer)

    _standing(site, point, then)


def _back(site: Site, point: str) -> None:
    def then(device: Device) -> None:
        _meets(device, site.stage.old)

    _standing(site, point, then)


def _meets(device: Device, ref: ReleaseRef) -> None:
    stage = device.stage
    device.want(ref)
    (device.folder / "go").touch()
    device.committed(ref)
    device.served_by([ref])
    device.truthful()
    device.holds_only(stage.old, stage.new, ref)
    device.kill()
    device.start()
    device.served_by([ref])
    device.committed(ref)
    device.truthful()


def _killed_with_both(site: Site, point: str) -> None:
    """The power goes while a newer wish is waiting."""

    def then(device: Device) -> None:
        device.want(site.stage.newer)
        device.kill()
        device.start()
        device.served_by([site.stage.old, site.stage.new, site.stage.newer])
        device.committed(site.stage.newer)
        device.truthful()

    _standing(site, point, then)


def _points(site: Site, quick: int = 4) -> list[str]:
    return site.some([str(n) for n in range(1, len(recorded(site)) + 1)], quick)


def _install(device: Device) -> subprocess.CompletedProcess[str]:
    bundle = str(device.stage.bundles / "1.2.0")
    arguments = [*command("serinus-agent"), "install", bundle, "--config", str(device.config)]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)


def _sideload(site: Site, point: str) -> None:
    """An install by hand is refused while the agent runs; after its end the report tells of it."""
    stage = site.stage
    with site.device(before="one", probation=60.0) as device:
        device.start()
        device.served_by([stage.old])
        if point == "in_trial":
            device.want(stage.new)
            device.until(lambda: _update(device) == "probation", "a trial")
        done = _install(device)
        if done.returncode != 2 or "stop it first" not in done.stderr:
            raise Fault(f"an install beside the agent ended with {done.returncode}: {done.stderr}")
        before = device.truthful().active
        if point == "after_kill":
            device.kill()
        else:
            device.agent.stop()
        done = _install(device)
        if done.returncode != 0:
            raise Fault(f"the install failed: {done.stderr}")
        device.patient(0.05)
        device.start()
        device.served_by([stage.newer])
        said = device.truthful()
        if said.active != stage.newer or said.previous not in (before, stage.old):
            raise Fault(f"{said.active} serves, {said.previous} is the previous one")
        if said.update == "committed" or "by hand" not in said.reason:
            raise Fault(f"{said.update}: {said.reason}")
        device.want(stage.new)  # and the fleet can take over again
        device.committed(stage.new)
        device.truthful()


def _update(device: Device) -> str:
    said = device.reported()
    return said.update if said is not None else ""


CASES = [
    Case(
        name="newer_wish",
        what="a newer wish at every file operation of an update",
        points=_points,
        run=_newer,
    ),
    Case(
        name="rollback_wish",
        what="a rollback wished at every file operation of an update",
        points=_points,
        run=_back,
    ),
    Case(
        name="newer_wish_kill",
        what="kill -9 just when a newer wish came, at every file operation",
        points=_points,
        run=_killed_with_both,
    ),
    Case(
        name="sideload",
        what="an install by hand on a managed device",
        points=lambda site: site.some(["at_rest", "in_trial", "after_kill"], 2),
        run=_sideload,
    ),
]
