"""``kill -9`` just before each file operation of an update."""

import os
import signal
from functools import partial
from pathlib import Path

from tests.faults.case import Case, Site
from tests.faults.device import Device, Fault
from tests.faults.operations import Operation, watch

LATER = 0.3
"""Seconds in which something may still be written after an update was committed."""
JOURNAL = ("journal.json", "active.json")


def is_journal(operation: Operation) -> bool:
    """Whether it writes down what the update has to remember."""
    return any(name in Path(operation.path).name for name in JOURNAL)


def recorded(site: Site) -> list[Operation]:
    """The operations of an update that nothing disturbs, in their order.

    Some are done by the clock and not in each run, so the shortest of three counts.
    """
    return min((_record(site) for _ in range(3)), key=len)


def _record(site: Site) -> list[Operation]:
    with site.device(before="one") as device:
        seen = device.folder / "operations"
        descriptor = os.open(seen, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def note(operation: Operation) -> None:
            os.write(descriptor, f"{operation.kind}\t{operation.path}\n".encode())

        device.start(lambda: watch(device.state, note))
        device.want(site.stage.new)
        device.committed(site.stage.new)
        device.truthful()
        device.tidy(site.stage.old, site.stage.new)
        lines = seen.read_text().splitlines()
        device.agent.stop()
        os.close(descriptor)
    return [Operation(*line.split("\t")) for line in lines]


def die_at(number: int, state: Path) -> None:
    """Have this process killed at the numbered operation."""
    met = 0

    def meet(operation: Operation) -> None:
        nonlocal met
        met += 1
        if met == number:
            os.kill(os.getpid(), signal.SIGKILL)

    watch(state, meet)


def _points(site: Site, journal: bool, quick: int) -> list[str]:
    numbered = enumerate(recorded(site), 1)
    return site.some([str(n) for n, op in numbered if is_journal(op) == journal], quick)


def _run(site: Site, point: str) -> None:
    stage = site.stage
    for _ in range(3):
        with site.device(before="one") as device:
            device.want(stage.new)
            device.start(partial(die_at, int(point), device.state))
            device.fleet.pump(until=partial(_over, device))
            device.serves()  # what answers is written down, too
            device.fleet.pump(LATER)
            if device.agent.running():
                continue  # the order of its threads was another one; again
            if not device.agent.killed:
                raise Fault(f"the agent ended by itself: {device.log.read_text()[-500:]}")
            device.start()
            device.served_by([stage.old, stage.new])
            device.committed(stage.new)
            device.truthful()
            device.tidy(stage.old, stage.new)
            return
    raise Fault("the update was over before this operation, three times")


def _over(device: Device) -> bool:
    said = device.reported()
    done = said is not None and said.update == "committed" and said.active == device.stage.new
    return done or not device.agent.running()


CASES = [
    Case(
        name="kill_journal",
        what="kill -9 at every write of journal and pointer",
        points=lambda site: _points(site, True, 4),
        run=_run,
    ),
    Case(
        name="kill_files",
        what="kill -9 at every other file operation of an update",
        points=lambda site: _points(site, False, 6),
        run=_run,
    ),
]
