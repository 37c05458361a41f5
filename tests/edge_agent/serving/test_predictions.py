import numpy as np
import pytest

from edge_agent.serving.predictions import Opinion, Recent, Remembered
from edge_core.release import ReleaseRef

ONE = ReleaseRef(model="m", version="1.0.0", digest="1" * 64)
TWO = ReleaseRef(model="m", version="2.0.0", digest="2" * 64)


def opinion(predicted: list[int], release: ReleaseRef = ONE) -> Opinion:
    return Opinion(
        release=release,
        classes=["a", "b"],
        predicted=np.array(predicted),
        confidence_bins=np.arange(len(predicted)),
        bins=12,
    )


def remember(recent: Recent, predicted: list[int]) -> Remembered:
    return recent.remember(opinion(predicted), arm="incumbent", rollout=None, slices={}, target="t")


def test_each_answer_is_found_by_its_id_once() -> None:
    recent = Recent(100, "t")
    batches = [remember(recent, [0, 1]), remember(recent, [1]), remember(recent, [1, 0, 0])]
    ids = [prediction_id for batch in batches for prediction_id in recent.ids(batch)]
    assert len(set(ids)) == 6
    found = [recent.take(prediction_id, "a") for prediction_id in ids]
    assert [given.predicted for given in found if given] == ["a", "b", "b", "b", "a", "a"]
    assert [recent.take(prediction_id, "a") for prediction_id in ids] == [None] * 6


def test_the_shadow_s_opinion_may_come_later() -> None:
    recent = Recent(100, "t")
    batch = remember(recent, [0, 1])
    batch.shadowed(opinion([1, 1], TWO))
    given = recent.take(recent.ids(batch)[0], "a")
    assert given is not None
    assert (given.predicted, given.shadow, given.shadow_predicted) == ("a", TWO, "b")


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    recent = Recent(10, "t")
    batches = [remember(recent, [0, 0, 0]) for _ in range(100)]
    assert recent.take(recent.ids(batches[0])[0], "a") is None
    known = sum(recent.take(i, "a") is not None for batch in batches for i in recent.ids(batch))
    assert known == 10
    assert recent.take(recent.ids(batches[-1])[-1], "a") is None  # taken above, so it was there


def test_a_batch_may_wrap_around_and_exceed_what_is_kept() -> None:
    recent = Recent(4, "t")
    remember(recent, [0, 0, 0])
    wrapped = remember(recent, [1, 0, 1])
    wrapped.shadowed(opinion([0, 1, 0], TWO))
    found = [recent.take(i, "a") for i in recent.ids(wrapped)]
    assert [(g.predicted, g.shadow_predicted) for g in found if g] == [
        ("b", "a"),
        ("a", "b"),
        ("b", "a"),
    ]
    many = remember(recent, [0, 0, 0, 1, 1, 0])
    taken = [recent.take(i, "a") for i in recent.ids(many)]
    assert [given and given.predicted for given in taken] == [None, None, "a", "b", "b", "a"]
    assert [given.confidence_bin for given in taken if given] == [2, 3, 4, 5]


def test_an_opinion_that_comes_too_late_touches_no_other_answer() -> None:
    recent = Recent(4, "t")
    forgotten = remember(recent, [0, 0])
    kept = remember(recent, [1, 1, 1, 1])
    forgotten.shadowed(opinion([1, 1], TWO))
    assert [given.shadow for i in recent.ids(kept) if (given := recent.take(i, "a"))] == [None] * 4


def test_contexts_are_kept_only_as_long_as_an_answer_needs_them() -> None:
    recent = Recent(50, "t")
    batches = []
    for number in range(3000):
        release = ReleaseRef(model="m", version=f"1.0.{number}", digest=f"{number:064x}")
        batch = recent.remember(
            opinion([number % 2], release),
            arm="incumbent",
            rollout=f"r{number}",
            slices={"side": str(number)},
            target="t",
        )
        batch.shadowed(opinion([0], TWO))
        batches.append(batch)
    assert len(recent._contexts) <= 256
    for number in range(2950, 3000):
        given = recent.take(recent.ids(batches[number])[0], "a")
        assert given is not None
        assert (given.release.version, given.rollout) == (f"1.0.{number}", f"r{number}")
        assert (given.slices, given.shadow) == ({"side": str(number)}, TWO)
        assert given.predicted == "ab"[number % 2]


@pytest.mark.parametrize(
    "text", ["", "t-", "t--1", "t-g", "t-0x0", "t-00", "t- 0", "u-0", "t-3", "t-" + "f" * 99]
)
def test_foreign_ids_find_nothing(text: str) -> None:
    recent = Recent(10, "t")
    remember(recent, [0, 0, 0])
    assert recent.take(text, "a") is None
