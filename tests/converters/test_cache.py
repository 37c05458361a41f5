import multiprocessing
import os
import time
from pathlib import Path

import pytest

from converters.cache import Cache

KEY = "ab" * 32


def test_what_was_put_comes_back(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "deep" / "store")
    assert cache.get(KEY) is None
    cache.put(KEY, b"made")
    assert cache.get(KEY) == b"made"
    cache.put(KEY, b"")
    assert cache.get(KEY) == b""


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied"])
def test_a_damaged_entry_is_no_entry(tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path)
    cache.put(KEY, b"made of something")
    content = bytearray((tmp_path / KEY).read_bytes())
    content[-1] ^= 1
    made = {"truncated": content[:-3], "flipped": content, "emptied": b""}
    (tmp_path / KEY).write_bytes(made[damage])
    assert cache.get(KEY) is None


def test_what_was_unused_for_longest_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=3000)
    for age, name in enumerate("abcd"):
        cache.put(name * 64, bytes(1000))
        then = time.time() - 100 + age
        os.utime(tmp_path / (name * 64), (then, then))
    assert cache.get("a" * 64) is not None  # used now
    cache.prune()
    held = {name for name in "abcd" if cache.get(name * 64) is not None}
    assert held == {"a", "d"}


def test_a_failed_write_leaves_no_half_entry(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "store")
    (cache.folder / KEY).mkdir(parents=True)  # the last step of the write fails
    with pytest.raises(OSError):  # noqa: PT011  # the file system words it
        cache.put(KEY, b"made")
    assert [path.name for path in cache.folder.iterdir()] == [KEY]


def _make(folder: Path, log: Path) -> None:
    cache = Cache(folder)
    with cache.locked(KEY):
        if cache.get(KEY) is None:
            time.sleep(0.2)
            with log.open("a") as file:
                file.write("made\n")
            cache.put(KEY, b"made")


def test_of_two_processes_that_want_the_same_one_makes_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    both = [context.Process(target=_make, args=(tmp_path / "store", log)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert log.read_text() == "made\n"
