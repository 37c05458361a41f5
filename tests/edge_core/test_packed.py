import zlib

import pytest

from edge_core import packed
from edge_core.errors import InvalidInput


@pytest.mark.parametrize("data", [b"", b"a", bytes(10_000), bytes(range(256)) * 40])
def test_what_is_packed_comes_back(data: bytes) -> None:
    assert packed.unpack(packed.pack(data), len(data)) == data


def test_a_bomb_is_refused_before_it_grows() -> None:
    bomb = zlib.compress(bytes(200_000_000), 9)
    assert len(bomb) < 256 * 1024
    with pytest.raises(InvalidInput, match="grow beyond 1000 bytes"):
        packed.unpack(bomb, 1000)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "cut short"),
        (b"noise", "damaged"),
        (packed.pack(b"hello" * 9)[:-1], "cut short"),
        (packed.pack(b"hello") + b"x", "other bytes follow"),
    ],
)
def test_other_bytes_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        packed.unpack(data, 1000)
