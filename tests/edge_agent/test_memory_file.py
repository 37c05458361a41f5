import hashlib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.memory_file import FILE, MAX_UNPACKED_BYTES, MemoryFile
from edge_agent.serving.remembering import Stored
from edge_agent.serving.work import Remembered
from edge_core.errors import InvalidInput, Unavailable

HOUR_MS = 3_600_000
NOW = 1_790_000_000_000
KEPT = Remembered("d" * 64, {"wrist": b"one", "hip": bytes(500)})


def file(folder: Path, **changes: Any) -> MemoryFile:
    return MemoryFile(folder, **({"max_bytes": 4096, "max_age_seconds": 3600.0} | changes))


def test_what_was_written_last_is_read(tmp_path: Path) -> None:
    memory = file(tmp_path)
    assert memory.read(NOW) is None
    memory.write(Remembered("e" * 64, {}), NOW - 5)
    memory.write(KEPT, NOW)
    expected = Stored(definition="d" * 64, at_ms=NOW, parts=dict(KEPT.parts))
    assert file(tmp_path).read(NOW + HOUR_MS) == expected
    # A clock that was set back makes nothing old.
    assert file(tmp_path).read(NOW - 99 * HOUR_MS) == expected
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_what_is_too_old_is_refused(tmp_path: Path) -> None:
    file(tmp_path).write(KEPT, NOW)
    with pytest.raises(InvalidInput, match=r"was stored 1\.0 hours ago"):
        file(tmp_path).read(NOW + HOUR_MS + 1)


def sealed(body: bytes) -> bytes:
    return hashlib.sha256(body).digest() + body


def content(**changes: Any) -> bytes:
    plain = {"v": 1, "definition": "d", "at_ms": NOW, "parts": {}}
    return sealed(zlib.compress(msgspec.msgpack.encode(plain | changes)))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "damaged: its bytes are not those of its digest"),
        (bytes(40), "its bytes are not those of its digest"),
        (sealed(b"noise"), "packed bytes are damaged"),
        (sealed(zlib.compress(b"noise")), "memory.bin is damaged"),
        (content(v=2), "has version 2; known is 1"),
        (content(more=1), "unknown field"),
        (content(parts={"a": 1}), "damaged"),
        (bytes(5000), "has more than 4096 bytes"),
    ],
)
def test_other_bytes_are_refused(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / FILE).write_bytes(content())
    assert file(tmp_path).read(NOW) is not None
    (tmp_path / FILE).write_bytes(data)
    with pytest.raises(InvalidInput, match=said):
        file(tmp_path).read(NOW)


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    packer = zlib.compressobj(9)
    piece = bytes(1 << 24)
    body = b"".join(packer.compress(piece) for _ in range(MAX_UNPACKED_BYTES // len(piece) + 1))
    (tmp_path / FILE).write_bytes(sealed(body + packer.flush()))
    with pytest.raises(InvalidInput, match="grow beyond"):
        file(tmp_path, max_bytes=10_000_000).read(NOW)


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_no_altered_bit_is_believed(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("altered")
    file(folder).write(KEPT, NOW)
    data = bytearray((folder / FILE).read_bytes())
    data[place % len(data)] ^= 1 << bit
    (folder / FILE).write_bytes(bytes(data))
    with pytest.raises(InvalidInput):
        file(folder).read(NOW)


def _too_much(folder: Path) -> Remembered:
    return Remembered("d" * 64, {"x": bytes(range(256)) * 20 + hashlib.sha512(b"").digest() * 99})


def _no_folder(folder: Path) -> Remembered:
    folder.rename(folder.with_name("gone"))
    return KEPT


@pytest.mark.parametrize(
    ("make", "changes", "said"),
    [
        (_too_much, {"max_bytes": 100}, r"takes \d+ bytes; \[memory\] max_bytes is 100"),
        (_no_folder, {}, "cannot be stored: No such file"),
    ],
)
def test_what_cannot_be_written_leaves_what_was(
    tmp_path: Path,
    make: Callable[[Path], Remembered],
    changes: dict[str, Any],
    said: str,
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    file(folder).write(KEPT, NOW)
    before = (folder / FILE).read_bytes()
    with pytest.raises(Unavailable, match=said):
        file(folder, **changes).write(make(folder), NOW)
    (kept,) = tmp_path.rglob(FILE)
    assert kept.read_bytes() == before
