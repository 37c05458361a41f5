"""When a download is tried again, and when no more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.update import room
from edge_agent.update.patience import (
    LONGEST_PAUSE_SECONDS,
    PROGRESS_BYTES,
    Patience,
    pause_seconds,
)
from edge_core.errors import SerinusError


@given(st.integers(0, 10**6), st.floats(1e-300, 1e6), st.floats(0, 1))
def test_pauses_grow_stay_bounded_and_are_never_none(
    attempt: int, first: float, draw: float
) -> None:
    pause = pause_seconds(attempt, first, draw)
    assert 0 < pause <= LONGEST_PAUSE_SECONDS
    assert pause <= pause_seconds(attempt + 1, first, draw)
    assert pause >= pause_seconds(attempt, first, 1.0) / 2


@given(st.lists(st.integers(0, 40 * PROGRESS_BYTES), max_size=500))
def test_every_download_comes_to_an_end(held: list[int]) -> None:
    """Whatever a server does: each new count takes progress, and progress is finite."""
    patience = Patience(attempts=3)
    for number, size in enumerate(held):
        if patience.lost(size):
            return
        assert number < 3 * (40 + 1)


def test_progress_begins_the_count_again_and_the_same_bytes_do_not() -> None:
    patience = Patience(attempts=2)
    assert not patience.lost(PROGRESS_BYTES)
    assert not patience.lost(2 * PROGRESS_BYTES)
    assert patience.lost(2 * PROGRESS_BYTES)
    assert patience.failed == 2


@given(
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.none() | st.integers(1, 10**9),
)
def test_a_release_fits_or_is_refused_with_the_numbers(
    missing: int, held: int, free: int, quota: int | None
) -> None:
    fits = (quota is None or held + missing <= quota) and (
        not missing or missing + room.SPARE_BYTES <= free
    )
    space = room.Room(held=held, free=free, quota=quota)
    if fits:
        room.check(missing, space, "m@1.0.0")
    else:
        with pytest.raises(SerinusError, match=f"m@1.0.0 needs {missing} bytes more"):
            room.check(missing, space, "m@1.0.0")
