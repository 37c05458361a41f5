"""A disk that refuses: each operation of an update in turn, once or from there on."""

import errno
from collections.abc import Callable
from pathlib import Path

from tests.faults.case import Case, Site
from tests.faults.device import Device, Fault
from tests.faults.kills import recorded
from tests.faults.operations import Operation, watch


def fail_at(number: int, error: int, state: Path, mended: Path | None) -> None:
    """Let the numbered operation of this process fail; those after it too, until it is mended."""
    met = 0

    def meet(operation: Operation) -> int | None:
        nonlocal met
        if mended is not None and mended.exists():
            return None
        met += 1
        failing = met == number if mended is None else met >= number
        # Linux tells of a failed write at the latest with fsync, and /dev/full knows one error.
        return error if failing and not (operation.kind == "write" and error != FULL) else None

    watch(state, meet)


FULL = errno.ENOSPC


def _points(site: Site) -> list[str]:
    return site.some([str(n) for n in range(1, len(recorded(site)) + 1)], 5)


def _once(error: int) -> Callable[[Site, str], None]:
    def run(site: Site, point: str) -> None:
        stage = site.stage
        with site.device(before="one") as device:
            device.want(stage.new)
            device.start(lambda: fail_at(int(point), error, device.state, None))
            device.served_by([stage.old, stage.new])
            device.rests_or_gives_up(stage.new)
            device.truthful()
            device.agent.stop()
            _goes_on(device)  # where removing failed, the next start does it

    return run


def _lasting(error: int) -> Callable[[Site, str], None]:
    def run(site: Site, point: str) -> None:
        stage = site.stage
        with site.device(before="one") as device:
            mended = device.folder / "mended"
            device.want(stage.new)
            device.start(lambda: fail_at(int(point), error, device.state, mended))
            device.served_by([stage.old, stage.new])
            device.until(lambda: bool(_account(device)), "the trouble, or the end of the update")
            device.fleet.pump(0.05)
            if device.serves() not in (stage.old.digest, stage.new.digest):
                raise Fault(f"nothing serves while the disk fails: {_account(device)}")
            mended.touch()
            device.rests_or_gives_up(stage.new)
            device.truthful()
            device.agent.stop()
            _goes_on(device)

    return run


def _account(device: Device) -> str:
    """What it says of the disk, or that it got through."""
    said = device.reported()
    if said is None:
        return ""
    resting = said.update in ("committed", "failed") and said.desired_revision == device.revision
    return said.reason or ("; ".join(said.troubles)) or ("done" if resting else "")


def _goes_on(device: Device) -> None:
    """After the fault: the next start serves, and the next wish is fulfilled."""
    stage = device.stage
    device.start()
    device.served_by([stage.old, stage.new])
    if not device.holds(stage.new):
        device.want(stage.new)
    device.committed(stage.new)
    device.truthful()
    device.tidy(stage.old, stage.new)


def _case(name: str, what: str, run: Callable[[Site, str], None]) -> Case:
    return Case(name=name, what=what, points=_points, run=run)


CASES = [
    _case("full_once", "ENOSPC at every file operation, once", _once(errno.ENOSPC)),
    _case("full_lasting", "ENOSPC from every file operation on", _lasting(errno.ENOSPC)),
    _case("broken_once", "EIO at every file operation, once", _once(errno.EIO)),
    _case("broken_lasting", "EIO from every file operation on", _lasting(errno.EIO)),
    _case("readonly_lasting", "EROFS from every file operation on", _lasting(errno.EROFS)),
]
