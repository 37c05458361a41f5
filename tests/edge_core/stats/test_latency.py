"""Latency bins are exact at every power of two."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_core.errors import InvalidMessage
from edge_core.stats.latency import BINS, LatencyHistogram


def counted(*microseconds: float) -> LatencyHistogram:
    found = LatencyHistogram()
    found.update(list(microseconds))
    return found


@pytest.mark.parametrize("exponent", range(1, BINS))
def test_a_power_of_two_opens_its_bin(exponent: int) -> None:
    edge = 2.0**exponent
    found = counted(np.nextafter(edge, 0), edge, np.nextafter(2 * edge, 0))
    assert found.counts[exponent - 1] == 1
    assert found.counts[exponent] == 2


def test_what_is_out_of_range_counts_at_the_ends() -> None:
    found = counted(-5, 0, 0.5, 1, 2.0**40, float("inf"))
    assert found.counts[0] == 4
    assert found.counts[-1] == 2
    assert found.counts.sum() == 6


def test_a_latency_that_is_no_number_is_a_bug() -> None:
    with pytest.raises(ValueError, match="not a number"):
        counted(float("nan"))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(1, 2.0**23), min_size=1, max_size=50),
    st.floats(0, 1),
)
def test_a_quantile_is_bounded_by_its_bin(values: list[float], share: float) -> None:
    bound = counted(*values).quantile(share)
    assert bound is not None
    rank = max(1, int(np.ceil(share * len(values))))
    true = sorted(values)[rank - 1]
    assert bound / 2 <= true < bound


def test_quantiles_of_nothing_and_of_the_ends() -> None:
    assert LatencyHistogram().quantile(0.5) is None
    assert counted(100.0).quantile(0) == counted(100.0).quantile(1) == 128
    assert counted(float("inf")).quantile(1) == 2.0**BINS


def test_bytes_come_back_and_a_wrong_number_is_refused() -> None:
    found = counted(3, 70, 70, 2.0**30)
    again = LatencyHistogram.from_bytes(found.to_bytes())
    assert again.counts.tolist() == found.counts.tolist()
    assert not LatencyHistogram.from_bytes(b"").counts.any()
    with pytest.raises(InvalidMessage):
        LatencyHistogram.from_bytes(found.to_bytes()[:-1])
