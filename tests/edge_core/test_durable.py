"""Whatever stops a writer, readers find the old bytes or the new ones, and no rubbish stays."""

import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_core import durable

ROOT = Path(__file__).parents[2]

WRITE_FOR_EVER = """
import sys
from itertools import count
from pathlib import Path
from edge_core import durable
print("ready", flush=True)
for number in count(1):
    byte = number % 256
    durable.write_bytes(Path(sys.argv[1]), bytes([byte]) * (500_000 + byte))
"""

DIE_BEFORE_ONE_CALL = """
import os, signal, sys
from pathlib import Path
from edge_core import durable
calls = {"open", "write", "flush", "fsync", "replace", "close"}
left = int(sys.argv[2])
def count(frame, event, function):
    global left
    if event == "c_call" and function.__name__ in calls:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
path = Path(sys.argv[1])
sys.setprofile(count)
durable.write_bytes(path, b"new" * 100_000)
sys.setprofile(None)
"""

WRITE_ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from edge_core import durable
limit, size = int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    durable.write_bytes(Path(sys.argv[1]), b"n" * size)
except OSError as error:
    print(error.strerror)
"""


def python(program: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with old content, alone in its folder."""
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "state"
    path.write_bytes(b"old")
    return path


def test_the_bytes_are_replaced(path: Path) -> None:
    for data in (b"", b"new", os.urandom(3_000_000)):
        durable.write_bytes(path, data)
        assert path.read_bytes() == data
        assert names(path.parent) == ["state"]


def test_a_new_file_is_made(path: Path) -> None:
    durable.write_bytes(path.with_name("another"), b"new")
    assert path.with_name("another").read_bytes() == b"new"
    assert names(path.parent) == ["another", "state"]


def test_whoever_reads_already_goes_on_reading_the_old_bytes(path: Path) -> None:
    with path.open("rb") as stream:
        durable.write_bytes(path, b"new")
        assert stream.read() == b"old"


def test_the_mode_is_the_one_asked_for(path: Path) -> None:
    before = os.umask(0o022)
    try:
        path.chmod(0o666)
        durable.write_bytes(path, b"secret", mode=0o600)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        durable.write_bytes(path, b"open")
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    finally:
        os.umask(before)


def test_a_leftover_temporary_file_is_overwritten(path: Path) -> None:
    path.with_name(".state.tmp").write_bytes(b"what a power cut left" * 100)
    durable.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["state"]


def test_the_bytes_are_flushed_before_the_name_and_the_name_after(path: Path) -> None:
    seen = []

    def note(_frame: object, event: str, function: object) -> None:
        name = getattr(function, "__name__", "")
        if event == "c_call" and name in {"fsync", "replace"}:
            seen.append(name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        durable.write_bytes(path, b"new")
    finally:
        sys.setprofile(before)
    assert seen == ["fsync", "replace", "fsync"]


def whole(data: bytes) -> bool:
    """Whether these are the old bytes, or all of one writing and nothing else."""
    return data == b"old" or data == data[:1] * (500_000 + data[0])


@pytest.fixture
def writers(path: Path) -> Iterator[list["subprocess.Popen[str]"]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for writer in started:
        writer.kill()
        writer.communicate()


def test_a_killed_writer_leaves_old_or_new_bytes_and_never_a_mixture(
    path: Path, writers: list["subprocess.Popen[str]"]
) -> None:
    delays = random.Random(7)
    left_something = 0
    for _ in range(25):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        writers.append(writer)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        until = time.monotonic() + delays.uniform(0, 0.03)
        while time.monotonic() < until:
            assert whole(path.read_bytes())
        writer.send_signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
        assert whole(path.read_bytes())
        assert set(names(path.parent)) <= {"state", ".state.tmp"}
        left_something += ".state.tmp" in names(path.parent)
    assert path.read_bytes() != b"old", "no writing was completed"
    assert left_something, "no writing was interrupted"
    durable.write_bytes(path, b"new")
    assert names(path.parent) == ["state"]


def test_a_writer_killed_before_each_of_its_calls_never_goes_back(path: Path) -> None:
    found = []
    for number in range(1, 30):
        path.write_bytes(b"old")
        done = python(DIE_BEFORE_ONE_CALL, path, number)
        data = path.read_bytes()
        assert data in (b"old", b"new" * 100_000)
        found.append("old" if data == b"old" else "new")
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.returncode == 0, "there were more calls than the test tried"
    assert len(found) > 5
    assert found == sorted(found, reverse=True)
    assert found[-2:] == ["new", "new"]
    assert names(path.parent) == ["state"]


@pytest.mark.parametrize(
    ("limit", "size"), [(100, 1000), (1_000_000, 2_000_000), (0, 1)], ids=["last", "middle", "none"]
)
def test_a_full_disk_leaves_the_old_bytes_and_no_temporary_file(
    path: Path, limit: int, size: int
) -> None:
    done = python(WRITE_ON_A_FULL_DISK, path, limit, size)
    assert (done.returncode, done.stdout) == (0, "File too large\n"), done.stderr
    assert path.read_bytes() == b"old"
    assert names(path.parent) == ["state"]


def test_a_name_that_is_taken_by_a_folder_is_left_alone(path: Path) -> None:
    (path.parent / "taken" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="taken"):
        durable.write_bytes(path.parent / "taken", b"new")
    assert names(path.parent) == ["state", "taken"]
    assert names(path.parent / "taken") == ["inside"]


def test_a_folder_that_is_not_there_is_not_made(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        durable.write_bytes(path.parent / "missing" / "state", b"new")
    assert names(path.parent) == ["state"]


def test_only_a_folder_is_flushed_as_a_folder(path: Path) -> None:
    durable.sync_folder(path.parent)
    with pytest.raises(NotADirectoryError):
        durable.sync_folder(path)
