"""The outbox and features' memory: killed at every step, torn, and a week without a broker."""

import asyncio
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import edge_agent.config
from edge_agent.agent import Agent
from edge_agent.memory_file import MemoryFile
from edge_agent.monitor import Role
from edge_agent.outbox import SAMPLES, STATS, Outbox
from edge_agent.serving.work import Remembered
from edge_core.bundle import folder as folders
from edge_core.bundle.manifest import FEATURES, REFERENCE
from edge_core.features import definition as definitions
from edge_core.messages import windows as windows_format
from edge_core.messages.window_schema import WindowSchema
from edge_core.stats import histogram
from tests.faults.case import Case, Site
from tests.faults.device import Device, Fault
from tests.faults.forks import Fork
from tests.faults.operations import Operation, watch
from tests.simulators.tiny_bundle import TARGET

BOUND = 1500
WEEK = 7 * 24 * 60
QUICK_WEEK = 300
Messages = list[tuple[str, bytes]]


def _sized(size: int, epoch: str, sequence: int) -> bytes:
    return f"{sequence}:".encode().ljust(size, b".")


def _steps(box: Outbox) -> list[Callable[[], object]]:
    """What an outbox goes through: filled over its bound, sent, filled again."""

    def add(kind: int, *sizes: int) -> Callable[[], object]:
        topic = "stats" if kind == STATS else "samples"
        return lambda: box.add(kind, topic, [partial(_sized, size) for size in sizes])

    def send() -> object:
        return box.sent(box.oldest(1)[0].id)

    return [
        add(STATS, 100, 100),
        add(SAMPLES, 300, 300),
        add(STATS, 200),
        send,
        add(STATS, 500),
        add(SAMPLES, 400),
        add(STATS, 400, 100),
        send,
        send,
        add(STATS, 100),
    ]


def _held(folder: Path) -> Messages:
    box = Outbox(folder, max_bytes=BOUND)
    try:
        if box.troubles:
            raise Fault(f"{box.troubles}")
        return [(message.topic, message.payload) for message in box.oldest(1000)]
    finally:
        box.close()


def _traced(meet: Callable[[str], None]) -> None:
    """Have every statement of this process's databases seen before it runs."""

    class Connection(sqlite3.Connection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.set_trace_callback(meet)

    connect = sqlite3.connect
    sqlite3.connect = lambda *a, **o: connect(*a, **{"factory": Connection, **o})  # type: ignore[assignment]


def _go_through(folder: Path, done: Path, number: int, count: Path) -> None:
    met = 0

    def meet(statement: str) -> None:
        nonlocal met
        met += 1
        if met == number:
            os.kill(os.getpid(), signal.SIGKILL)

    _traced(meet)
    box = Outbox(folder, max_bytes=BOUND)
    for step in _steps(box):
        step()
        with done.open("a") as stream:
            stream.write("x")
    count.write_text(str(met))


def _expected(folder: Path) -> list[Messages]:
    """What it holds before the first step and after each."""
    folder.mkdir(parents=True)
    box = Outbox(folder, max_bytes=BOUND)
    found = [[(m.topic, m.payload) for m in box.oldest(1000)]]
    for step in _steps(box):
        step()
        found.append([(m.topic, m.payload) for m in box.oldest(1000)])
    box.close()
    return found


def _statements(site: Site) -> list[str]:
    folder = site.folder / "whole"
    folder.mkdir()
    count = site.folder / "count"
    Fork(lambda: _go_through(folder, site.folder / "done", 0, count), site.folder / "log").join(30)
    return site.some([str(n) for n in range(1, int(count.read_text()) + 1)], 12)


def _outbox_kill(site: Site, point: str) -> None:
    folder, done = site.folder / "box", site.folder / "done"
    folder.mkdir()
    fork = Fork(
        lambda: _go_through(folder, done, int(point), site.folder / "count"), site.folder / "log"
    )
    fork.join(30)
    if not fork.killed:
        raise Fault("it was not killed")
    expected = _expected(site.folder / "expected")
    steps = done.stat().st_size if done.exists() else 0
    found = _held(folder)
    if found not in expected[steps : steps + 2]:
        raise Fault(f"after {steps} steps it holds {[p[:8] for _, p in found]}")


def _wal(site: Site) -> Path:
    """An outbox whose messages all stand in its log, as after a kill."""
    folder = site.stage.folder / "wal"
    if not folder.exists():
        folder.mkdir()

        def fill() -> None:
            box = Outbox(folder, max_bytes=10**6)
            for _ in range(6):
                box.add(STATS, "stats", [partial(_sized, 200)])
            os.kill(os.getpid(), signal.SIGKILL)

        Fork(fill, site.folder / "log").join(30)
    return folder


def _wal_points(site: Site) -> list[str]:
    size = (_wal(site) / "outbox.db-wal").stat().st_size
    return site.some([str(at) for at in range(0, size, 256)], 8)


def _wal_torn(site: Site, point: str) -> None:
    """A log cut short: what was stored first is there, nothing is there twice, and it goes on."""
    folder = site.folder / "box"
    shutil.copytree(_wal(site), folder)
    (folder / "outbox.db-shm").unlink(missing_ok=True)
    os.truncate(folder / "outbox.db-wal", int(point))
    found = [int(payload.split(b":")[0]) for _, payload in _held(folder)]
    if found != list(range(1, len(found) + 1)):
        raise Fault(f"numbers {found}")
    box = Outbox(folder, max_bytes=10**6)
    box.add(STATS, "stats", [partial(_sized, 200)])
    last = box.oldest(1000)[-1]
    box.close()
    if int(last.payload.split(b":")[0]) != len(found) + 1:
        raise Fault(f"the next number after {found} is {last.payload[:4]!r}")


def _remembered(text: str) -> Remembered:
    return Remembered(definition="d" * 64, parts={"wrist": text.encode() * 2000})


def _store_memory(folder: Path, number: int, count: Path) -> None:
    met = 0

    def meet(operation: Operation) -> None:
        nonlocal met
        met += 1
        if met == number:
            os.kill(os.getpid(), signal.SIGKILL)

    watch(folder, meet)
    _memory(folder).write(_remembered("new"), 2000)
    count.write_text(str(met))


def _memory(folder: Path) -> MemoryFile:
    return MemoryFile(folder, max_bytes=10**6, max_age_seconds=10**6)


def _memory_points(site: Site) -> list[str]:
    folder, count = site.folder / "state", site.folder / "count"
    folder.mkdir()
    Fork(lambda: _store_memory(folder, 0, count), site.folder / "log").join(30)
    return [
        f"{first}-{n}" for first in ("old", "none") for n in range(1, int(count.read_text()) + 1)
    ]


def _memory_kill(site: Site, point: str) -> None:
    """What is read afterwards is what stood before, or all of what was to be stored."""
    before, number = point.split("-")
    folder = site.folder / "state"
    folder.mkdir()
    allowed = [None] if before == "none" else ["old"]
    if before == "old":
        _memory(folder).write(_remembered("old"), 1000)
    fork = Fork(
        lambda: _store_memory(folder, int(number), site.folder / "count"), site.folder / "log"
    )
    fork.join(30)
    if not fork.killed:
        raise Fault("it was not killed")
    stored = _memory(folder).read(3000)
    text = stored.parts["wrist"][:3].decode() if stored else None
    if text not in [*allowed, "new"]:
        raise Fault(f"{text} was read")
    _memory(folder).write(_remembered("new"), 4000)
    again = _memory(folder).read(5000)
    if again is None or again.parts["wrist"] != b"new" * 2000:
        raise Fault("it cannot be stored afterwards")


def _offline(device: Device, windows: int, die_at: int) -> None:
    """Store so many windows as the agent does, each with a count of its own."""

    async def fill() -> None:
        config = edge_agent.config.load(device.config)
        agent = Agent(config)
        schema = _schema(device)
        agent._monitor.know(schema)
        role = Role(release=device.stage.old, target=TARGET, arm="incumbent", rollout=None)
        for number in range(_sequence(device), windows):
            agent._monitor.late(role, {}, number + 1, schema.confidence_size)
            agent._sending.store()
            if number == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)  # as a power cut: nothing is closed

    asyncio.run(fill())


def _schema(device: Device) -> WindowSchema:
    """How windows of its release are packed."""
    ref = device.stage.old
    folder = device.state / "slots" / ref.digest
    manifest = folders.read(folder)
    definition = definitions.parse((folder / FEATURES).read_bytes())
    reference = histogram.parse((folder / REFERENCE).read_bytes())
    return WindowSchema.of(ref, manifest, reference, definition.raw_shape[0])


def _sequence(device: Device) -> int:
    """Number of the last window that its outbox took."""
    with closing(sqlite3.connect(device.state / "outbox.db")) as database:
        return int(database.execute("select sequence from meta").fetchone()[0])


def _week(site: Site, point: str) -> None:
    stage = site.stage
    windows = QUICK_WEEK if site.quick else WEEK
    with site.device(before="one") as device:
        before = _sequence(device)
        last = before + windows
        if point == "killed_while_filling":
            for at in (windows // 7, windows // 3, windows // 2):
                Fork(partial(_offline, device, last, at), device.log).join(300)
        if Fork(partial(_offline, device, last, -1), device.log).join(300) != 0:
            raise Fault(device.log.read_text()[-1000:])
        device.fleet.follow(device.name, windows=True)
        device.start()
        device.served_by([stage.old])
        for share in (5, 3, 2) if point == "killed_while_sending" else ():
            part = windows // share
            device.until(partial(_arrived, device, part), f"{part} windows", 120.0)
            device.kill()
            device.start()
        device.until(partial(_arrived, device, windows), f"{windows} windows", 240.0)
        device.truthful()
        heard = device.fleet.windows[device.name]
        if len({window.epoch for window in heard}) != 1:
            raise Fault("more than one epoch")
        # The server knows a window by epoch and sequence; the first of each counts.
        first = list(dict.fromkeys(window.sequence for window in heard))
        numbers = range(before + 1, last + 1)
        if first[:windows] != list(numbers):
            raise Fault("windows are lost or came in another order")
        schema = _schema(device)
        told = {
            (head.sequence, windows_format.unpack(head, schema, device.name).late)
            for head in heard
            if head.sequence <= last
        }
        if told != {(number, number) for number in numbers}:
            raise Fault("a number was given to two windows")
        device.until(lambda: device.status().get("unsent_bytes") == 0, "an empty outbox")


def _arrived(device: Device, windows: int) -> bool:
    heard = device.fleet.windows.get(device.name, [])
    return len(heard) >= windows and len({window.sequence for window in heard}) >= windows


CASES = [
    Case(
        name="outbox_kill",
        what="kill -9 at every statement of the outbox",
        points=_statements,
        run=_outbox_kill,
    ),
    Case(
        name="outbox_torn",
        what="the outbox's log cut off every 256 bytes",
        points=_wal_points,
        run=_wal_torn,
    ),
    Case(
        name="memory_kill",
        what="kill -9 at every file operation of storing what features remember",
        points=_memory_points,
        run=_memory_kill,
    ),
    Case(
        name="broker_week",
        what=f"no broker for a week ({WEEK} windows), then all of them in order",
        points=lambda site: ["whole", "killed_while_filling", "killed_while_sending"],
        run=_week,
    ),
]
