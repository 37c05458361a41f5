"""Receipts: whatever order, whatever comes again, nothing counts twice."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from fleet_server.domain.received import Received

FEW = 8
NUMBERS = st.lists(st.integers(min_value=0, max_value=400), max_size=400)


@given(NUMBERS)
def test_each_number_is_new_at_most_once_and_known_for_ever(numbers: list[int]) -> None:
    received, new = Received(most=FEW), []
    for number in numbers:
        if received.add(number):
            new.append(number)
        assert all(seen in received for seen in new)
    assert len(new) == len(set(new))
    assert not any(received.add(number) for number in numbers)


@given(NUMBERS)
def test_nothing_is_refused_while_there_are_few_gaps(numbers: list[int]) -> None:
    few = [number % (2 * FEW) for number in numbers]
    received = Received(most=FEW)
    new = {number for number in few if received.add(number)}
    assert new == set(few)
    assert sorted(n for first, last in received.ranges for n in range(first, last + 1)) == sorted(
        new
    )


@given(NUMBERS)
def test_ranges_are_bounded_sorted_apart_and_survive_packing(numbers: list[int]) -> None:
    received = Received(most=FEW)
    for number in numbers:
        received.add(number)
        ranges = received.ranges
        assert len(ranges) <= FEW
        assert all(first <= last for first, last in ranges)
        assert all(a[1] + 1 < b[0] for a, b in itertools.pairwise(ranges))
    assert Received.unpack(received.pack()).ranges == received.ranges


def test_the_oldest_gap_is_given_up_first() -> None:
    received = Received(most=3)
    assert all(received.add(number) for number in (0, 2, 4, 6))
    assert received.ranges == [(0, 2), (4, 4), (6, 6)]
    assert not received.add(1)
    assert received.add(5)


def test_large_numbers_fit() -> None:
    received = Received.of([0, (1 << 63) - 1])
    assert Received.unpack(received.pack()).ranges == [(0, 0), ((1 << 63) - 1, (1 << 63) - 1)]
