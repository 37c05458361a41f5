"""What time it is at least: the rule for any history, the file, and a clock that is set back."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.clock import SystemClock
from edge_agent.floor_file import FILE, MAX_FILE_BYTES, MAX_MS, FloorFile, StoredFloor
from edge_agent.reference_time import (
    BEHIND_MS,
    COUNTED,
    OF,
    Floor,
    Moment,
    ReferenceTime,
    is_behind,
    raised,
    reached,
    recalled,
    reference,
)
from edge_agent.update.sealing import seal

DAY = 86_400_000
NOW = 1_790_000_000_000
WALL = st.integers(0, 2 * NOW)
PASSED = st.integers(0, 400 * DAY)
BOOT = "5e8f0c3a-0000-4000-8000-000000000001"


@st.composite
def histories(draw: st.DrawFn) -> tuple[Floor, list[tuple[Moment, int | None]]]:
    """A floor, and what came after it: moments, each with the end of a list that was fresh then."""
    start = draw(PASSED)
    floor = Floor(at_ms=draw(WALL), since_boot_ms=start)
    moments: list[tuple[Moment, int | None]] = []
    for passed, wall, left in draw(
        st.lists(st.tuples(PASSED, WALL, st.none() | st.integers(1, 40 * DAY)), max_size=8)
    ):
        start += passed
        end = None if left is None else wall + left
        moments.append((Moment(wall_ms=wall, since_boot_ms=start), end))
    return floor, moments


@given(histories())
def test_the_floor_never_falls_and_no_clock_lifts_it_past_the_end_of_a_list_that_was_fresh(
    history: tuple[Floor, list[tuple[Moment, int | None]]],
) -> None:
    floor, moments = history
    first = floor
    ends = [0]
    for moment, end in moments:
        before, fresh = floor, end is not None and reference(floor, moment) < end
        if fresh and end is not None:
            ends.append(end)
        floor = raised(floor, moment, accepted=fresh)
        assert floor.at_ms >= before.at_ms
        assert reference(floor, moment) >= max(floor.at_ms, min(moment.wall_ms, MAX_MS))
        passed = moment.since_boot_ms - first.since_boot_ms
        assert floor.at_ms <= max(first.at_ms, *ends) + passed


@given(WALL, WALL, PASSED)
def test_a_clock_alone_lifts_nothing(at_ms: int, wall_ms: int, since: int) -> None:
    floor = Floor(at_ms=at_ms, since_boot_ms=since)
    moment = Moment(wall_ms=wall_ms, since_boot_ms=since)
    assert raised(floor, moment, accepted=False) == floor


@given(st.integers(0, NOW), st.lists(PASSED, max_size=6), st.booleans())
def test_looking_often_loses_no_time(at_ms: int, pauses: list[int], looks: bool) -> None:
    floor, since = Floor(at_ms=at_ms, since_boot_ms=0), 0
    for pause in pauses:
        since += pause
        if looks:
            floor = raised(floor, Moment(wall_ms=0, since_boot_ms=since), accepted=False)
    found = reached(floor, Moment(wall_ms=0, since_boot_ms=since))
    assert at_ms + since * COUNTED // OF - len(pauses) <= found <= at_ms + since * COUNTED // OF


@given(st.integers(1, 30 * DAY), st.integers(0, NOW))
def test_a_clock_that_was_ahead_once_is_caught_up_with(ahead: int, true_ms: int) -> None:
    """The true time goes on and the clock is right again: soon it alone tells the time."""
    floor = raised(
        Floor(at_ms=true_ms, since_boot_ms=0),
        Moment(wall_ms=true_ms + ahead, since_boot_ms=0),
        accepted=True,
    )
    passed = ahead * OF
    right = Moment(wall_ms=true_ms + passed, since_boot_ms=passed)
    assert reference(floor, right) == right.wall_ms


@given(st.integers(0, NOW), st.integers(1, 40 * DAY), WALL)
def test_a_list_ends_for_a_running_device_whatever_its_clock_says(
    at_ms: int, life: int, wall_ms: int
) -> None:
    floor = Floor(at_ms=at_ms, since_boot_ms=7)
    late = Moment(wall_ms=wall_ms, since_boot_ms=7 + -(-life * OF // COUNTED))
    assert reference(floor, late) >= at_ms + life


@given(st.integers(0, NOW), PASSED, PASSED)
def test_without_a_battery_the_clock_of_1970_is_not_believed_after_a_restart(
    at_ms: int, before: int, after: int
) -> None:
    stored = StoredFloor(at_ms=at_ms, boot=BOOT, since_boot_ms=before)
    woken = Moment(wall_ms=0, since_boot_ms=after)
    assert reference(recalled(stored, "another", woken), woken) == at_ms
    assert reference(recalled(stored, "", woken), woken) == at_ms
    nothing = recalled(None, BOOT, woken)
    assert reference(nothing, woken) == 0


def test_a_restart_of_the_process_loses_no_time() -> None:
    stored = StoredFloor(at_ms=NOW, boot=BOOT, since_boot_ms=5)
    later = Moment(wall_ms=0, since_boot_ms=5 + 10 * DAY)
    assert reached(recalled(stored, BOOT, later), later) == NOW + 9 * DAY


def test_only_a_clock_well_behind_is_a_trouble() -> None:
    floor = Floor(at_ms=NOW, since_boot_ms=0)
    for behind, said in ((-DAY, False), (0, False), (BEHIND_MS, False), (BEHIND_MS + 1, True)):
        assert is_behind(floor, Moment(wall_ms=NOW - behind, since_boot_ms=0)) is said


def test_no_file_leads_past_what_a_date_can_be() -> None:
    floor = Floor(at_ms=MAX_MS, since_boot_ms=0)
    assert reference(floor, Moment(wall_ms=10 * MAX_MS, since_boot_ms=MAX_MS)) == MAX_MS


class Machine:
    """Both clocks of a machine, set by hand."""

    def __init__(self) -> None:
        self.wall = NOW
        self.since = 1000

    def now_ms(self) -> int:
        return self.wall

    def since_boot_ms(self) -> int:
        return self.since


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_what_was_reached_holds_over_a_restart(tmp_path: Path, machine: Machine) -> None:
    before = ReferenceTime(tmp_path, machine, BOOT)
    before.keep(before.moment(), accepted=True)
    machine.wall = 0
    machine.since += 10 * DAY
    for boot, passed in ((BOOT, 9 * DAY), ("another", 0)):
        after = ReferenceTime(tmp_path, machine, boot)
        assert after.at(after.moment()).timestamp() * 1000 == NOW + passed


def test_a_clock_that_is_set_back_is_told_once_and_until_it_is_set_right(
    tmp_path: Path, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    time = ReferenceTime(tmp_path, machine, BOOT)
    time.keep(time.moment(), accepted=True)
    assert time.trouble == ""
    machine.wall -= 30 * DAY
    said = time.trouble
    assert "the clock said 2026-08-22 14:13Z when it was 2026-09-21 14:13Z at least" in said
    assert "set the clock" in said
    machine.wall += DAY
    machine.since += DAY
    assert time.trouble == said  # or every minute would be news for the fleet
    assert [record.message for record in caplog.records] == [said]
    machine.wall = NOW + DAY
    assert time.trouble == ""


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-2],
        lambda data: data.replace(b"179", b"279", 1),
        lambda data: data.partition(b"\n")[0],
        lambda data: seal(b'{"v":1,"at_ms":-1,"boot":"","since_boot_ms":0}'),
        lambda data: seal(b'{"v":2,"at_ms":1,"boot":"","since_boot_ms":0}'),
        lambda data: seal(b"[" * 2000),
        lambda data: b"x" * (MAX_FILE_BYTES + 1),
    ],
)
def test_a_file_that_cannot_be_read_is_as_none_and_said(
    tmp_path: Path,
    machine: Machine,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes],
) -> None:
    time = ReferenceTime(tmp_path, machine, BOOT)
    time.keep(time.moment(), accepted=True)
    path = tmp_path / FILE
    path.write_bytes(damage(path.read_bytes()))
    machine.wall = 5
    again = ReferenceTime(tmp_path, machine, BOOT)
    assert again.at(again.moment()).timestamp() == 0.005
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "only the clock tells the time" in record.message
    again.keep(again.moment(), accepted=True)
    assert FloorFile(tmp_path).read() is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.sampled_from(["v", "at_ms", "boot", "since_boot_ms", "more"]), JSON)


@given(st.binary(max_size=300) | FIELDS.map(msgspec.json.encode), st.booleans())
def test_whatever_lies_there_is_a_time_or_none(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, sealed: bool
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / FILE).write_bytes(seal(data) if sealed else data)
    found = ReferenceTime(folder, Machine(), BOOT)
    assert found.at(found.moment()).timestamp() * 1000 >= NOW
    assert len(found.trouble) <= 512  # as a message may hold


def test_a_disk_that_takes_nothing_does_not_stop_the_time(
    tmp_path: Path, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    time = ReferenceTime(tmp_path, machine, BOOT)
    (tmp_path / f".{FILE}.tmp").mkdir()
    time.keep(time.moment(), accepted=True)
    machine.wall = 0
    assert time.at(time.moment()).timestamp() * 1000 == NOW
    assert "cannot be stored" in caplog.text


WRITER = """
import sys
from pathlib import Path
from edge_agent.floor_file import FloorFile, StoredFloor
file = FloorFile(Path(sys.argv[1]))
for at in range(10**9):
    file.write(StoredFloor(at_ms=at, boot="b", since_boot_ms=at))
    print(at, flush=True)
"""


def test_a_writer_that_is_killed_leaves_the_old_time_or_the_new_one(tmp_path: Path) -> None:
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            while int(writer.stdout.readline()) < 20:
                pass
            os.kill(writer.pid, signal.SIGKILL)
            last = [20, *map(int, writer.stdout.read().split())][-1]
        found = FloorFile(tmp_path).read()
        assert found is not None
        assert found.at_ms in (last, last + 1)


def test_the_machine_counts_its_own_sleep_where_it_can() -> None:
    found = SystemClock().since_boot_ms() / 1000
    boot = time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
    assert found == pytest.approx(boot, abs=60)
