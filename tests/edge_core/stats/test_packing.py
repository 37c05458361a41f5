"""Packed counts come back, in the bits that were promised, and hostile bytes are refused."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_core.errors import InvalidMessage
from edge_core.stats import bits, packing, rice
from edge_core.stats.bits import BitReader
from edge_core.stats.histogram import LARGEST_COUNT

Int64 = npt.NDArray[np.int64]

NUMBERS = st.one_of(
    st.integers(0, 3),
    st.integers(0, 700),
    st.integers(-50, 50),
    st.integers(-LARGEST_COUNT, LARGEST_COUNT),
)
CHANNELS = st.lists(st.lists(NUMBERS, min_size=1, max_size=30), max_size=8)


def flat(channels: list[list[int]]) -> tuple[Int64, list[int]]:
    counts = [count for channel in channels for count in channel]
    return np.array(counts, np.int64), [len(channel) for channel in channels]


@settings(max_examples=300, deadline=None)
@given(CHANNELS, st.integers(0, 2**40))
def test_counts_come_back(channels: list[list[int]], usual: int) -> None:
    counts, sizes = flat(channels)
    packed = packing.pack(counts, sizes, usual)
    assert packing.unpack(packed, sizes, usual).tolist() == counts.tolist()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2**44 - 1), min_size=1, max_size=40), st.integers(0, 42))
def test_rice_codes_come_back(values: list[int], k: int) -> None:
    written = "".join(rice.write(value, k) for value in values)
    reader = BitReader(bits.to_bytes(written))
    assert [rice.read(reader, k) for _ in values] == values
    reader.finish()


@given(st.lists(st.integers(-(2**42), 2**42), max_size=20))
def test_folding_is_undone(values: list[int]) -> None:
    found = rice.folded(np.array(values, np.int64)).tolist()
    assert all(value >= 0 for value in found)
    assert [rice.unfolded(value) for value in found] == values


@given(st.lists(st.integers(0, 2**44 - 1), min_size=1, max_size=9), st.integers(0, 42))
def test_lengths_are_those_of_what_is_written(values: list[int], k: int) -> None:
    found = rice.lengths(np.array(values), np.array(k)).tolist()
    assert found == [len(rice.write(value, k)) for value in values]


def test_known_bits() -> None:
    """Golomb's code of 9 with 4: two ones, a zero, and 1 in two bits."""
    assert rice.write(9, 2) == "11001"
    assert rice.write(0, 0) == "0"
    assert rice.write(3, 0) == "1110"
    # Same total, every bin and no guard, a step 2 below the first, and 0 and -1 with k = 1.
    counts = np.array([0, 10, 9, 11, 0, 0])
    assert packing.pack(counts, [6], 30) == bits.to_bytes("0011100001")


@pytest.mark.parametrize("change", [-1, 1])
def test_other_sizes_are_a_bug(change: int) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        packing.pack(np.zeros(5, np.int64), [5 + change], 0)
    with pytest.raises(ValueError, match="out of range"):
        packing.pack(np.array([LARGEST_COUNT + 1]), [1], 0)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=80), st.lists(st.integers(1, 30), max_size=6), st.integers(0, 2**40))
def test_any_bytes_are_counts_or_refused(data: bytes, sizes: list[int], usual: int) -> None:
    try:
        found = packing.unpack(data, sizes, usual)
    except InvalidMessage:
        return
    assert len(found) == sum(sizes)
    assert np.abs(found).max(initial=0) <= LARGEST_COUNT
    again = packing.pack(found, sizes, usual)
    assert packing.unpack(again, sizes, usual).tolist() == found.tolist()


def test_cut_or_longer_bytes_are_refused() -> None:
    counts = np.array([0, 10, 9, 11, 0, 0, 0, 400, 1, 30, 0, 0])
    data = packing.pack(counts, [6, 6], 30)
    for length in range(len(data)):
        with pytest.raises(InvalidMessage, match="cut short"):
            packing.unpack(data[:length], [6, 6], 30)
    for more in (b"\0", b"\1", b"\0" * 60_000):
        with pytest.raises(InvalidMessage, match="follow the packed counts"):
            packing.unpack(data + more, [6, 6], 30)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1" + format(3, "06b") + "111" + "1111", "total"),
        ("0" + "10" + rice.write(3, 0) + "0", "are not among"),
        ("0" + "0" + rice.write(1, 0) + "1" * 4, "cut short"),
        ("0" + "0" + rice.write(39, 0) + "0" * 60, "step -21"),
        ("0" + "0" + rice.write(16, 0) + "1" * 200, "step 7"),
        ("0" + "0" + "0" + "1" * 24 + "1" * 44 + "0" * 80, "beyond"),
    ],
)
def test_hostile_bits_are_refused_by_what_they_say(text: str, words: str) -> None:
    with pytest.raises(InvalidMessage, match=words):
        packing.unpack(bits.to_bytes(text), [6], 30)


def test_the_work_of_unpacking_is_bounded_by_the_bytes() -> None:
    """64 KiB of ones: one escape after the other, each beyond what may be counted."""
    with pytest.raises(InvalidMessage):
        packing.unpack(b"\xff" * 65536, [13] * 100, 600)
    with pytest.raises(InvalidMessage, match="cut short"):
        packing.unpack(bytes(1400), [13] * 1000, 0)


def test_a_device_hour_is_small() -> None:
    """38 channels of 600 rows that look like the reference, two of which do not."""
    rng = np.random.default_rng(5)
    channels = [[0, *rng.multinomial(600, [0.1] * 10).tolist(), 0, 0] for _ in range(38)]
    channels += [[0, 0, 590, 10, *[0] * 9], [600, *[0] * 12]]
    counts, sizes = flat(channels)
    packed = packing.pack(counts, sizes, 600)
    assert len(packed) <= 300
    assert packing.unpack(packed, sizes, 600).tolist() == counts.tolist()
