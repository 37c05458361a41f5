import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.inference.session import Float32
from edge_agent.serving.answer_cache import AnswerCache


class Model:
    """Counts the rows that it is asked for."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, given: Float32) -> Float32:
        self.rows += len(given)
        return np.stack([given[:, 0] * 2, given[:, 0] + 1], axis=1)


def rows(*values: float) -> Float32:
    return np.array([[value, 0.0] for value in values], np.float32)


def test_a_row_that_comes_again_is_not_asked_for_again() -> None:
    model, cache = Model(), AnswerCache(8)
    first, known = cache.answer(rows(1, 2), model)
    assert not known.any()
    again, known = cache.answer(rows(2, 3, 1), model)
    assert known.tolist() == [True, False, True]
    assert again.tolist() == [[4, 3], [6, 4], [2, 2]]
    assert first.tolist() == [[2, 2], [4, 3]]
    assert model.rows == 3


def test_the_least_recently_used_row_goes_first() -> None:
    model, cache = Model(), AnswerCache(2)
    for row in (1, 2, 1, 3):  # 2 is the oldest when 3 comes
        cache.answer(rows(row), model)
    assert len(cache) == 2
    assert cache.answer(rows(1), model)[1].all()
    assert not cache.answer(rows(2), model)[1].any()


def test_answers_that_are_no_numbers_are_not_kept() -> None:
    cache = AnswerCache(8)
    broken = rows(float("nan"), 1)
    for _ in range(2):
        _, known = cache.answer(broken, lambda given: given)
        assert known.tolist() == [False, known[1]]
    assert len(cache) == 1


def test_what_the_caller_does_with_its_answer_stays_with_the_caller() -> None:
    model, cache = Model(), AnswerCache(8)
    cache.answer(rows(1), model)[0][:] = 0
    assert cache.answer(rows(1), model)[0].tolist() == [[2, 2]]


@given(
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), max_size=12), st.integers(1, 4)
)
def test_a_cache_never_changes_an_answer(batches: list[list[int]], capacity: int) -> None:
    cache = AnswerCache(capacity)
    for batch in batches:
        found, _ = cache.answer(rows(*batch), Model())
        assert found.tolist() == Model()(rows(*batch)).tolist()
        assert len(cache) <= capacity
