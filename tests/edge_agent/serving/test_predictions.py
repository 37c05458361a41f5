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
    batch.shadow = opinion([1, 1], TWO)
    given = recent.take(recent.ids(batch)[0], "a")
    assert given is not None
    assert (given.predicted, given.shadow, given.shadow_predicted) == ("a", TWO, "b")


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    recent = Recent(10, "t")
    batches = [remember(recent, [0, 0, 0]) for _ in range(100)]
    assert recent.take(recent.ids(batches[0])[0], "a") is None
    known = sum(recent.take(i, "a") is not None for batch in batches for i in recent.ids(batch))
    assert 10 <= known <= 20
    assert recent.take(recent.ids(batches[-1])[-1], "a") is None  # taken above, so it was there


@pytest.mark.parametrize(
    "text", ["", "t-", "t--1", "t-g", "t-0x0", "t-00", "t- 0", "u-0", "t-3", "t-" + "f" * 99]
)
def test_foreign_ids_find_nothing(text: str) -> None:
    recent = Recent(10, "t")
    remember(recent, [0, 0, 0])
    assert recent.take(text, "a") is None
