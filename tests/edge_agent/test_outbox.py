import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from edge_agent.outbox import SAMPLES, STATS, Outbox
from edge_core.errors import Unavailable

WRITER = """
import sys
from pathlib import Path
from edge_agent.outbox import STATS, Outbox
box = Outbox(Path(sys.argv[1]), max_bytes=10**6)
print("ready", flush=True)
while True:
    box.add(STATS, "t", [lambda epoch, sequence: f"{epoch}:{sequence}".encode()])
"""

# Dies before the numbered statement that sqlite runs.
MAKER = """
import os, signal, sqlite3, sys
from pathlib import Path
from edge_agent.outbox import Outbox
statements = []
def count(statement):
    statements.append(statement)
    if len(statements) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
class Connection(sqlite3.Connection):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.set_trace_callback(count)
connect = sqlite3.connect
sqlite3.connect = lambda *arguments, **options: connect(*arguments, factory=Connection, **options)
Outbox(Path(sys.argv[1]), max_bytes=10**6)
"""


def numbered(epoch: str, sequence: int) -> bytes:
    return f"{epoch}:{sequence}".encode()


def filled(size: int, epoch: str, sequence: int) -> bytes:
    return bytes(size)


def test_messages_keep_their_order_and_numbers_over_a_restart(tmp_path: Path) -> None:
    box = Outbox(tmp_path, max_bytes=10**6)
    box.add(STATS, "t", [numbered, numbered])
    box.close()
    again = Outbox(tmp_path, max_bytes=10**6)
    again.add(STATS, "t", [numbered])
    assert [stored.payload for stored in again.oldest(10)] == [
        f"{again.epoch}:{n}".encode() for n in (1, 2, 3)
    ]
    again.close()


def test_an_acknowledged_message_is_forgotten_and_the_others_stay(tmp_path: Path) -> None:
    box = Outbox(tmp_path, max_bytes=10**6)
    box.add(STATS, "t", [numbered, numbered, numbered])
    first, second, third = box.oldest(10)
    box.sent(second.id)
    assert [stored.id for stored in box.oldest(10)] == [first.id, third.id]
    assert [stored.id for stored in box.oldest(10, after=first.id)] == [third.id]
    box.close()


def test_an_emptied_outbox_gives_new_ids(tmp_path: Path) -> None:
    box = Outbox(tmp_path, max_bytes=10**6)
    box.add(STATS, "t", [numbered])
    (first,) = box.oldest(10)
    box.sent(first.id)
    box.add(STATS, "t", [numbered])
    assert len(box.oldest(10, after=first.id)) == 1
    box.close()


def test_samples_go_before_statistics_when_the_outbox_is_full(tmp_path: Path) -> None:
    box = Outbox(tmp_path, max_bytes=1000)
    box.add(STATS, "stats", [partial(filled, 400)])
    box.add(SAMPLES, "samples", [partial(filled, 400)])
    box.add(STATS, "stats", [partial(filled, 400)])
    assert [stored.topic for stored in box.oldest(10)] == ["stats", "stats"]
    assert box.dropped == 1
    box.close()


def test_a_corrupt_file_is_kept_aside_and_a_new_epoch_begins(tmp_path: Path) -> None:
    box = Outbox(tmp_path, max_bytes=1000)
    epoch = box.epoch
    box.close()
    (tmp_path / "outbox.db").write_bytes(b"not a database" * 1000)
    again = Outbox(tmp_path, max_bytes=1000)
    assert again.epoch != epoch
    assert (tmp_path / "outbox.corrupt").exists()
    again.close()


@pytest.mark.parametrize(
    "tables",
    [
        "create table meta (epoch text, sequence integer)",
        "create table meta (epoch text, sequence integer); insert into meta values ('aa', 0)",
        "create table messages (id integer primary key, kind integer, topic text, payload blob)",
        "create table meta (other text); create table messages (id integer primary key)",
    ],
)
def test_half_a_database_is_kept_aside_and_a_new_epoch_begins(tmp_path: Path, tables: str) -> None:
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as database:
        database.executescript(tables)
    box = Outbox(tmp_path, max_bytes=1000)
    box.add(STATS, "t", [numbered])
    assert [stored.payload for stored in box.oldest(10)] == [f"{box.epoch}:1".encode()]
    assert (tmp_path / "outbox.corrupt").exists()
    box.close()


def test_a_kill_while_the_database_is_made_leaves_all_of_it_or_nothing(tmp_path: Path) -> None:
    killed, number = True, 0
    while killed:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        arguments = [sys.executable, "-c", MAKER, str(folder), str(number)]
        killed = subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
        box = Outbox(folder, max_bytes=10**6)
        box.add(STATS, "t", [numbered])
        assert len(box.oldest(10)) == 1
        assert not (folder / "outbox.corrupt").exists()
        box.close()


def test_a_damaged_page_is_found_when_the_file_is_opened(tmp_path: Path) -> None:
    damage(tmp_path)
    box = Outbox(tmp_path, max_bytes=10**6)
    assert box.oldest(10) == []
    assert box.size == 0
    assert "began anew" in box.troubles[0]
    assert (tmp_path / "outbox.corrupt").exists()
    box.close()


def test_damage_while_it_is_open_is_said_and_a_fresh_file_goes_on(tmp_path: Path) -> None:
    box = Outbox(tmp_path, max_bytes=10**6)
    box.add(STATS, "t", [numbered, numbered])
    epoch = box.epoch
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as other:
        other.execute("drop table messages")
        other.commit()
    with pytest.raises(Unavailable, match="cannot be read"):
        box.oldest(10)
    box.add(STATS, "t", [numbered])
    assert box.epoch != epoch
    # Who asks for what comes after the last one it sent still sees it.
    assert [(m.id, m.payload) for m in box.oldest(10, after=2)] == [(3, f"{box.epoch}:1".encode())]
    assert box.size == len(f"{box.epoch}:1")
    assert "began anew" in box.troubles[0]
    assert (tmp_path / "outbox.corrupt").exists()
    box.close()


def damage(folder: Path) -> None:
    """Fill an outbox and overwrite the first page of its messages."""
    box = Outbox(folder, max_bytes=10**6)
    box.add(STATS, "t", [partial(filled, 2000)] * 50)
    box.close()
    path = folder / "outbox.db"
    with closing(sqlite3.connect(path)) as database:
        query = "select rootpage from sqlite_master where name = 'messages'"
        (page,) = database.execute(query).fetchone()
        (size,) = database.execute("pragma page_size").fetchone()
    data = bytearray(path.read_bytes())
    data[(page - 1) * size : page * size] = b"\xa5" * size
    path.write_bytes(bytes(data))


def test_where_no_file_can_be_opened_memory_serves_and_the_file_is_left_as_it_is(
    tmp_path: Path,
) -> None:
    box = Outbox(tmp_path, max_bytes=10**6)
    box.add(STATS, "t", [numbered])
    box.close()
    (tmp_path / "outbox.db").rename(tmp_path / "aside")
    (tmp_path / "outbox.db").mkdir()
    lost = Outbox(tmp_path, max_bytes=10**9)
    assert "memory only" in lost.troubles[0]
    lost.add(STATS, "t", [partial(filled, 1_000_000)] * 6)
    assert len(lost.oldest(10)) == 4, "memory holds less than a disk"
    lost.close()
    (tmp_path / "outbox.db").rmdir()
    (tmp_path / "aside").rename(tmp_path / "outbox.db")
    again = Outbox(tmp_path, max_bytes=1000)
    assert again.troubles == []
    assert [stored.payload for stored in again.oldest(10)] == [f"{again.epoch}:1".encode()]
    assert not (tmp_path / "outbox.corrupt").exists()
    again.close()


def test_the_size_is_that_of_what_waits(tmp_path: Path) -> None:
    box = Outbox(tmp_path, max_bytes=1000)
    box.add(STATS, "t", [partial(filled, 300)] * 5)
    assert (box.size, box.dropped) == (900, 2)
    box.sent(box.oldest(1)[0].id)
    box.sent(10**9)
    assert box.size == 600

    def failing(epoch: str, sequence: int) -> bytes:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        box.add(STATS, "t", [partial(filled, 300), failing])
    assert box.size == 600
    box.close()
    again = Outbox(tmp_path, max_bytes=1000)
    assert again.size == 600
    again.close()


def test_no_number_is_lost_or_used_twice_when_the_process_is_killed(tmp_path: Path) -> None:
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        before = _count(tmp_path)
        while _count(tmp_path) < before + 20:
            pass
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    box = Outbox(tmp_path, max_bytes=10**6)
    numbers = [int(stored.payload.split(b":")[1]) for stored in box.oldest(10**6)]
    assert numbers == list(range(1, len(numbers) + 1))
    box.close()


def _count(folder: Path) -> int:
    box = Outbox(folder, max_bytes=10**6)
    try:
        return len(box.oldest(10**6))
    finally:
        box.close()
