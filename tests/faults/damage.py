"""Files of the state folder that were cut short or changed: byte by byte, evenly sampled."""

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.faults.case import Case, Site
from tests.faults.device import Device, Fault

SAMPLES = 40
FLIP = 0xFF
"""All bits of a byte: no text has such bytes, so that it is noticed."""
BIT = 0x01
"""One bit: what it gives may well be another digit or letter."""
Places = Callable[[Site], list[Path]]
"""Which files of the state folder ``two`` are damaged, relative to it."""


def _spread(size: int, samples: int) -> list[int]:
    """Positions in so many bytes, the first and the last among them."""
    if size <= samples:
        return list(range(size))
    return sorted({round(i * (size - 1) / (samples - 1)) for i in range(samples)})


def _points(places: Places, samples: int, quick: int) -> Callable[[Site], list[str]]:
    def points(site: Site) -> list[str]:
        found = []
        for place in places(site):
            size = (site.stage.folder / "two" / place).stat().st_size
            for kind in ("cut", "flip", "bit"):
                found += [f"{place}:{kind}:{at}" for at in _spread(size, samples)]
            found.append(f"{place}:gone:0")
        return site.some(found, quick)

    return points


def _damaged(state: Path, point: str) -> None:
    place, kind, at = point.split(":")
    path, position = state / place, int(at)
    data = path.read_bytes()
    match kind:
        case "cut":
            path.write_bytes(data[:position])
        case "flip" | "bit":
            changed = bytes([data[position] ^ (FLIP if kind == "flip" else BIT)])
            path.write_bytes(data[:position] + changed + data[position + 1 :])
        case _:
            path.unlink()


def _recovers(site: Site, point: str) -> None:
    """It serves one of its two releases, and then what is wished."""
    stage = site.stage
    with site.device(before="two") as device:
        _damaged(device.state, point)
        device.start()
        device.served_by([stage.old, stage.new])
        device.rests()
        device.truthful()
        device.want(stage.newer)
        device.committed(stage.newer)
        device.truthful()
        device.agent.stop()
        device.start()
        device.served_by([stage.newer])
        device.committed(stage.newer)
        device.truthful()


def _recovers_in_update(site: Site, point: str) -> None:
    """As above, where the process ended in the middle of an update's trial."""
    stage = site.stage
    with site.device(before="two", probation=60.0) as device:
        device.want(stage.newer)
        device.start()
        device.until(lambda: _update(device) == "probation", "a trial")
        device.kill()
        place = point.split(":")[0]
        size = (device.state / place).stat().st_size
        kind, at = point.split(":")[1:]
        _damaged(device.state, f"{place}:{kind}:{min(int(at), size - 1)}")
        device.patient(0.05)
        device.start()
        device.served_by([stage.old, stage.new, stage.newer])
        device.revision = 11
        device.rests_or_gives_up(stage.newer)
        device.truthful()
        device.want(stage.newer)
        device.committed(stage.newer)
        device.truthful()


def _update(device: Device) -> str:
    said = device.reported()
    return said.update if said is not None else ""


def _outbox(site: Site, point: str) -> None:
    """Statistics go on; where something was lost, the report says so."""
    stage = site.stage
    with site.device(before="two", window=0.1) as device:
        _damaged(device.state, point)
        device.fleet.follow(device.name, windows=True)
        device.start()
        device.served_by([stage.new])
        device.until(lambda: bool(device.fleet.windows.get(device.name)), "a window of statistics")
        said = device.truthful()
        aside = (device.state / "outbox.corrupt").exists()
        if aside != bool(said.troubles):
            raise Fault(f"put aside: {aside}; reported: {said.troubles}")
        if aside and device.status().get("troubles") != "; ".join(said.troubles):
            raise Fault(f"status says {device.status().get('troubles')!r}")
        device.agent.stop()
        device.start()
        device.served_by([stage.new])
        if device.truthful().troubles:
            raise Fault("the trouble does not end")


def _trust(site: Site) -> list[Path]:
    folder = site.stage.folder / "two"
    return sorted(p.relative_to(folder) for p in (folder / "tuf").rglob("*.json") if p.is_file())


def _slot(site: Site) -> list[Path]:
    folder = site.stage.folder / "two"
    slots = folder / "slots"
    found = [p.relative_to(folder) for p in slots.rglob("*") if p.is_file()]
    return sorted(found)


def _slots_recover(site: Site, point: str) -> None:
    """A damaged slot is not served, the other one is; the next wish for it is fetched anew."""
    stage = site.stage
    with site.device(before="two") as device:
        _damaged(device.state, point)
        device.start()
        device.served_by([stage.old, stage.new])
        device.rests()
        said = device.reported()
        if said is None or said.active is None or device.serves() != said.active.digest:
            raise Fault(f"{device.serves()[:8]} answers, reported is {said}")
        device.want(stage.newer)
        device.committed(stage.newer)
        device.want(stage.old)
        device.committed(stage.old)
        device.truthful()


def _files(*names: str) -> Places:
    return lambda site: [Path(name) for name in names]


def keep_outbox_full(site: Site) -> None:
    """Leave messages in the outbox of the state folder that the points begin with."""
    stage = site.stage
    with site.device(before="two", window=0.05) as device:
        text = device.config.read_text()
        device.config.write_text(text.replace(f"port = {stage.mqtt_port}", "port = 9"))
        device.start()
        device.served_by([stage.new])
        for _ in range(20):
            device.serves()
            device.fleet.pump(0.05)
        device.kill()
        shutil.copy(device.state / "outbox.db", stage.folder / "two" / "outbox.db")
        for name in ("outbox.db-wal", "outbox.db-shm"):
            if (device.state / name).exists():
                shutil.copy(device.state / name, stage.folder / "two" / name)


def _outbox_points(site: Site) -> list[str]:
    keep_outbox_full(site)
    names = ["outbox.db", "outbox.db-wal"]
    there = [name for name in names if (site.stage.folder / "two" / name).exists()]
    return _points(_files(*there), SAMPLES, 6)(site)


CASES = [
    Case(
        name="journal_damage",
        what="a journal cut short or changed",
        points=_points(_files("journal.json"), SAMPLES, 5),
        run=_recovers,
    ),
    Case(
        name="pointer_damage",
        what="a pointer cut short or changed",
        points=_points(_files("active.json"), SAMPLES, 5),
        run=_recovers,
    ),
    Case(
        name="trial_damage",
        what="a journal or pointer damaged in the middle of a trial",
        points=_points(_files("journal.json", "active.json"), 12, 4),
        run=_recovers_in_update,
    ),
    Case(
        name="trust_damage",
        what="the release list's files on the device cut short or changed",
        points=_points(_trust, 6, 5),
        run=_recovers,
    ),
    Case(
        name="slot_damage",
        what="a release's files on the device cut short or changed",
        points=_points(_slot, 4, 5),
        run=_slots_recover,
    ),
    Case(
        name="outbox_damage",
        what="the outbox's files cut short or changed",
        points=_outbox_points,
        run=_outbox,
    ),
]
