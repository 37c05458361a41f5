"""A real disk that is too small or read-only, and memory that does not suffice."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.case import Case, NotHere, Site, copied
from tests.faults.device import Device, Fault

MS_RDONLY = 1
MS_REMOUNT = 32
MNT_DETACH = 2
PAGE = 4096
MOST_PAGES = 360
"""Free pages with which an update surely fits, and what the agent keeps spare."""
SIZES = (*range(0, 60, 2), *range(60, MOST_PAGES, 20), MOST_PAGES)
LARGE = 64 * 1024 * 1024
MEGABYTES = (0, 1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128)


def _mount(folder: Path, flags: int, options: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, options.encode())
    if done != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own on the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount(folder, 0, f"size={LARGE}")
    try:
        yield
    finally:
        ctypes.CDLL(None).umount2(os.fsencode(folder), MNT_DETACH)


def _allowed(site: Site) -> None:
    try:
        with small_disk(site.folder / "try"):
            pass
    except OSError as error:
        raise NotHere(f"mounting is not allowed ({error.strerror})") from error


def _fill(device: Device) -> None:
    source = device.stage.folder / "one"
    for path in source.iterdir():
        if path.is_dir():
            copied(path, device.state / path.name)
        else:
            (device.state / path.name).write_bytes(path.read_bytes())
    device.revision = 10


def _sizes(site: Site) -> list[str]:
    _allowed(site)
    return site.some([str(pages) for pages in SIZES], 4)


def _full(site: Site, point: str) -> None:
    stage = site.stage
    device = site.device(window=0.2)
    with small_disk(device.state), device:
        _fill(device)
        found = os.statvfs(device.state)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        _mount(device.state, MS_REMOUNT, f"size={used + int(point) * PAGE}")
        device.start()
        device.served_by([stage.old])
        device.want(stage.new)
        device.until(lambda: bool(_told(device)), "the trouble, or the end of the update")
        device.served_by([stage.old, stage.new])
        said = device.reported()
        if int(point) == MOST_PAGES and (said is None or said.active != stage.new):
            raise Fault(f"the update does not fit into {MOST_PAGES} pages: {said}")
        _mount(device.state, MS_REMOUNT, f"size={LARGE}")
        device.rests_or_gives_up(stage.new)
        device.truthful()
        _goes_on(device)
        device.agent.stop()


def _told(device: Device) -> str:
    said = device.reported()
    if said is None:
        return ""
    done = said.update in ("committed", "failed") and said.desired_revision == device.revision
    return said.reason or (said.update if done else "")


def _readonly(site: Site, point: str) -> None:
    """It serves on a disk that takes nothing, says so, and goes on when the disk does."""
    stage = site.stage
    device = site.device(window=0.2)
    with small_disk(device.state), device:
        _fill(device)
        _mount(device.state, MS_REMOUNT | MS_RDONLY, f"size={LARGE}")
        if point == "wish_before":
            device.want(stage.new)
        device.start()
        device.served_by([stage.old])
        device.until(lambda: device.reported() is not None, "a report")
        said = device.reported()
        assert said is not None
        if not any("memory only" in trouble for trouble in said.troubles):
            raise Fault(f"nothing is said of the outbox: {said}")
        device.want(stage.new)
        device.until(lambda: bool(_told(device)), "the trouble")
        device.served_by([stage.old])
        _mount(device.state, MS_REMOUNT, f"size={LARGE}")
        device.rests_or_gives_up(stage.new)
        device.truthful()
        _goes_on(device)
        device.agent.stop()
        device.start()
        device.served_by([stage.new])
        if device.truthful().troubles:
            raise Fault("the outbox is not back after a start")
        device.agent.stop()


def _goes_on(device: Device) -> None:
    stage = device.stage
    if not device.holds(stage.new):
        device.want(stage.new)
    device.committed(stage.new)
    device.truthful()


def _no_memory(site: Site, point: str) -> None:
    """Whatever the lack of memory ends, one of the two releases serves then or after a start."""
    stage = site.stage
    with site.device(before="one") as device:
        device.start()
        device.served_by([stage.old])
        device.limit_memory(int(point) * 1024 * 1024)
        device.want(stage.new)
        device.fleet.pump(until=lambda: not device.agent.running() or bool(_told(device)))
        if device.agent.running():
            device.served_by([stage.old, stage.new])
            device.kill()
        device.start()
        device.served_by([stage.old, stage.new])
        device.rests_or_gives_up(stage.new)
        device.truthful()
        _goes_on(device)
        device.tidy(stage.old, stage.new)


CASES = [
    Case(name="disk_size", what="an update on a disk of each size", points=_sizes, run=_full),
    Case(
        name="disk_readonly",
        what="a file system that is mounted read-only",
        points=lambda site: _allowed(site) or ["wish_before", "wish_after"],
        run=_readonly,
    ),
    Case(
        name="memory",
        what="an update with so many megabytes of address space left",
        points=lambda site: site.some([str(more) for more in MEGABYTES], 4),
        run=_no_memory,
    ),
]
