"""What the agent reads from its own disk, and its settings."""

from pathlib import Path

import msgspec

from edge_agent import config
from edge_agent.memory_file import FILE as MEMORY_FILE
from edge_agent.memory_file import MemoryFile
from edge_agent.sampling import Sampling
from edge_agent.serving import prediction_log
from edge_agent.serving.asking import NewEvents, SensorSamples
from edge_agent.serving.prediction_log import Line
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.work import Remembered
from edge_agent.update import journal, transitions
from edge_agent.update.journal import Entry, Journal
from edge_agent.update.sealing import seal
from edge_agent.update.slots import POINTER, Pointer, Slots
from edge_core.errors import SerinusError
from tests.compat.make_samples import DESIRED, REFUSED
from tests.fuzz.forms import BYTES, JSON, LINES, MEMORY
from tests.fuzz.mutator import Case
from tests.fuzz.surface import Surface
from tests.simulators.tiny_bundle import TARGET, tiny_bundle, tiny_rows
from tests.simulators.tiny_requests import BEGIN, SECOND, story, tiny_requests

NOW_US = BEGIN + 400 * SECOND
SETTINGS = b"""
device = "watch-1"
target = "cpu-x86_64-ort"
state_dir = "state"
slices = { side = "left" }
[repository]
url = "http://127.0.0.1:9/repository"
trusted_root = "root.json"
[mqtt]
host = "127.0.0.1"
port = 1883
[serving]
socket = "agent.sock"
rest_port = 8080
socket_mode = "0660"
consumers = ["uid:1000/camera.py"]
[telemetry]
window_seconds = 60.5
[memory]
max_age_seconds = 86400
[update]
max_error_share = 0.02
[sideload]
keys = ["statement.pub.pem"]
"""


class Journals(Surface):
    """The journal: whatever lies there is read as an entry, and can be written over."""

    name = "journals"
    forms = (JSON,)
    short = 120

    def __init__(self, folder: Path) -> None:
        self._path = folder / journal.FILE
        self._journal = Journal(folder)
        entries = [
            Entry(),
            Entry(
                state="probation", desired=DESIRED, starts=2, proven="a" * 64, refusals=[REFUSED]
            ),
        ]
        self.seeds = [(msgspec.json.encode(entry),) for entry in entries]

    def feed(self, case: Case) -> int:
        self._path.write_bytes(seal(case[0]))  # or every change would be refused at the door
        entry = self._journal.read()
        assert len(entry.reason) <= 512  # as a message may hold
        if entry.state == "unreadable":
            assert entry.reason.isprintable()
            return 1
        # What the updater goes on with has to fit where it is written and reported next.
        self._journal.write(entry)
        assert self._journal.read() == entry
        if entry.state in transitions.STATES:
            assert entry.starts >= 0
        return 0

    def check(self) -> None:
        entry = Entry(state="committed", desired=DESIRED)
        self._journal.write(entry)
        assert self._journal.read() == entry


class Pointers(Surface):
    """The pointer to the active slot."""

    name = "pointers"
    forms = (JSON,)
    short = 120

    def __init__(self, folder: Path) -> None:
        self._path = folder / POINTER
        self._slots = Slots(folder)
        self._outside = folder.parent / "outside"
        self.seeds = [(msgspec.json.encode(Pointer(active="a" * 64, previous="b" * 64)),)]

    def feed(self, case: Case) -> int:
        self._path.write_bytes(seal(case[0]))
        pointer = self._slots.pointer()
        if pointer is None:
            return 1
        for digest in (pointer.active, pointer.previous):
            if digest is not None:
                assert self._slots.path(digest).parent == self._path.parent / "slots", digest
                self._slots.has(digest)
        return 0

    def check(self) -> None:
        pointer = Pointer(active="c" * 64)
        self._slots.switch(pointer)
        assert self._slots.pointer() == pointer


class Memories(Surface):
    """``memory.bin``, as bytes and as content under a fitting digest, restored for both kinds."""

    name = "memories"
    forms = (MEMORY,)
    short = 120

    def __init__(self, folder: Path) -> None:
        self._path = folder / MEMORY_FILE
        self._file = MemoryFile(folder, max_bytes=2**22, max_age_seconds=86400)
        self._releases = [
            LoadedRelease.open(tiny_bundle(folder / "one"), TARGET),
            LoadedRelease.open(tiny_requests(folder / "two"), TARGET),
        ]
        self.seeds = []
        for release, work in zip(self._releases, (_samples(), _events()), strict=True):
            memory = release.begin()
            memory.take(work, NOW_US, Sampling(100))
            parts = memory.snapshot()
            remembered = Remembered(definition=release.definition_digest, parts=parts)
            self._file.write(remembered, NOW_US // 1000)
            self.seeds.append((self._path.read_bytes(),))

    def feed(self, case: Case) -> int:
        self._path.write_bytes(case[0])
        stored = self._file.read(NOW_US // 1000)
        assert stored is not None
        refused: list[SerinusError] = []
        for release in self._releases:
            try:
                memory = release.restore(stored.parts)
                memory.snapshot()
                memory.take(
                    _samples() if release.kind == "windows" else _events(), NOW_US, Sampling(100)
                )
            except SerinusError as error:
                refused.append(error)
        if len(refused) == len(self._releases):
            raise refused[0]
        return 0

    def check(self) -> None:
        for case in self.seeds:
            assert self.feed(case) == 0


class PredictionLogs(Surface):
    """The log of predictions, and ids that are looked up in it."""

    name = "prediction-log"
    forms = (LINES, BYTES)
    short = 120

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        line = Line(
            at_us=NOW_US,
            token="5f3a9c01",
            first=16,
            rows=8,
            model="tiny-motion",
            version="1.0.0",
            digest="a" * 64,
            target=TARGET,
            runtime="onnxruntime",
            arm="incumbent",
        )
        lines = b"".join(msgspec.json.encode(line) + b"\n" for _ in range(3))
        self.seeds = [(lines, b"5f3a9c01-12"), (lines, b"00000000-0")]

    def feed(self, case: Case) -> int:
        (self._folder / prediction_log.NAME).write_bytes(case[0])
        prediction_log.find(self._folder, case[1].decode("utf-8", "surrogateescape"))
        return 0

    def check(self) -> None:
        (self._folder / prediction_log.NAME).write_bytes(self.seeds[0][0])
        found = prediction_log.find(self._folder, "5f3a9c01-12")
        assert found is not None
        assert found.first == 16


class Settings(Surface):
    """The agent's settings file."""

    name = "settings"
    forms = (LINES,)
    short = 120

    def __init__(self, folder: Path) -> None:
        self._path = folder / "agent.toml"
        self.seeds = [(SETTINGS,)]

    def feed(self, case: Case) -> int:
        self._path.write_bytes(case[0])
        config.load(self._path)
        return 0

    def check(self) -> None:
        self._path.write_bytes(SETTINGS)
        assert config.load(self._path).device == "watch-1"


def _samples() -> SensorSamples:
    samples = tiny_rows(1)[0][0]
    times = [NOW_US + 20_000 * number for number in range(len(samples))]
    return SensorSamples("s", times, samples)


def _events() -> NewEvents:
    told = story(60).events
    return NewEvents("parcels", told.times_us, told.sequence, told.fields, None)
