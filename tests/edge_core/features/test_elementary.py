"""Elementary functions against Python's own, and the same bits for any batch."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_core.features import elementary


@given(st.floats(-0.999999, 1e300))
def test_log1p_is_that_of_the_library_to_a_few_units_in_the_last_place(value: float) -> None:
    (found,) = elementary.log1p(np.array([value]))
    assert found == pytest.approx(math.log1p(value), rel=2e-15, abs=0)


@given(st.integers(1, 2**50), st.data())
def test_the_circle_is_that_of_the_library(period: int, data: st.DataObject) -> None:
    turned = data.draw(st.integers(0, period - 1))
    sine, cosine = elementary.circle(np.array([turned]), period)
    angle = 2 * math.pi * (turned / period)
    assert sine[0] == pytest.approx(math.sin(angle), abs=2e-15)
    assert cosine[0] == pytest.approx(math.cos(angle), abs=2e-15)
    assert sine[0] ** 2 + cosine[0] ** 2 == pytest.approx(1, abs=1e-15)


def test_quarters_of_a_turn_are_whole() -> None:
    sine, cosine = elementary.circle(np.arange(8), 8)
    assert sine[::2].tolist() == [0, 1, 0, -1]
    assert cosine[::2].tolist() == [1, 0, -1, 0]
    assert sine[1] == pytest.approx(cosine[1], abs=2e-16)


def test_one_value_alone_has_the_bits_that_it_has_among_others() -> None:
    values = np.linspace(-0.99, 1e4, 4001)
    alone = np.array([elementary.log1p(values[place : place + 1])[0] for place in range(4001)])
    assert alone.tobytes() == elementary.log1p(values).tobytes()
    turned = np.arange(0, 86_400_000_000, 86_399_977)
    sines = [elementary.circle(turned[p : p + 1], 86_400_000_000)[0][0] for p in range(len(turned))]
    assert np.array(sines).tobytes() == elementary.circle(turned, 86_400_000_000)[0].tobytes()


def test_bits_never_change() -> None:
    found = elementary.log1p(np.arange(-99, 100_000, 7) / 100)
    sine, cosine = elementary.circle(np.arange(0, 604_800, 11), 604_800)
    digest = hashlib.sha256(
        b"".join(part.astype("<f8").tobytes() for part in (found, sine, cosine))
    )
    assert digest.hexdigest() == "be4e6ea442e7dd28589a7846b0c6d9850605d9fb6955fdd2bb081e057d64e830"
