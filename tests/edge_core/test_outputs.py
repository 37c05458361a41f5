"""Probabilities are the softmax, rounded once, whatever the logits are."""

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_core.outputs import probabilities

Float32 = npt.NDArray[np.float32]
LARGEST = float(np.finfo(np.float32).max)

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 20))
ANY_LOGITS = arrays.arrays(np.float32, SHAPES, elements=st.floats(-LARGEST, LARGEST, width=32))
USUAL_LOGITS = arrays.arrays(np.float32, SHAPES, elements=st.floats(-50, 50, width=32))


def exact_exp(x: Fraction) -> Fraction:
    """The exponential by its series on a small argument, squared back up; far below 1e-20."""
    halvings = 10
    small = x / 2**halvings
    term = total = Fraction(1)
    for number in range(1, 30):
        term = term * small / number
        total += term
    for _ in range(halvings):
        total = (total * total).limit_denominator(10**60)
    return total


@pytest.mark.parametrize(
    "row",
    [[0.0, 0.0], [1.0, 2.0, 3.0], [-4.5, 0.125, 4.25, 4.5], [20.0, -10.0, 19.5], [7.0]],
)
def test_probabilities_are_the_exact_softmax_rounded_once(row: list[float]) -> None:
    top = max(row)
    powers = [exact_exp(Fraction(value) - Fraction(top)) for value in row]
    expected = [np.float32(float(power / sum(powers))) for power in powers]
    found = probabilities(np.array([row], np.float32))
    assert found.dtype == np.float32
    assert found.tolist() == [expected]


@given(ANY_LOGITS)
def test_any_finite_logits_give_a_distribution(logits: Float32) -> None:
    found = probabilities(logits)
    assert found.shape == logits.shape
    assert found.dtype == np.float32
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_allclose(found.sum(axis=-1, dtype=np.float64), 1, atol=1e-6)


@given(ANY_LOGITS)
def test_the_order_of_the_classes_is_kept(logits: Float32) -> None:
    found = probabilities(logits)
    for row, scores in zip(logits, found, strict=True):
        assert (np.diff(scores[np.argsort(row, kind="stable")]) >= 0).all()
        assert scores[row.argmax()] == scores.max()


@given(USUAL_LOGITS)
def test_a_row_does_not_depend_on_its_batch_or_layout(logits: Float32) -> None:
    together = probabilities(logits)
    alone = np.concatenate([probabilities(row[None]) for row in logits])
    assert together.tobytes() == alone.tobytes()
    assert probabilities(np.asfortranarray(logits)).tolist() == together.tolist()
    assert probabilities(logits[0]).tolist() == together[0].tolist()


@given(USUAL_LOGITS, st.integers(-8, 8).map(lambda power: 2.0**power))
def test_equal_logits_share_equally(logits: Float32, shift: float) -> None:
    equal = np.full_like(logits, shift)
    assert set(probabilities(equal).ravel().tolist()) == {float(np.float32(1 / logits.shape[1]))}


@given(ANY_LOGITS)
def test_the_logits_are_left_as_they_are(logits: Float32) -> None:
    before = logits.tobytes()
    probabilities(logits)
    assert logits.tobytes() == before


def test_no_rows_give_no_probabilities() -> None:
    assert probabilities(np.zeros((0, 3), np.float32)).shape == (0, 3)
