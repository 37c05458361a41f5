"""Leaks of the label into the inputs are seen; ordinary features are not suspected."""

import numpy as np
import pytest

from converters import judging, suspicion
from converters.data.dataset import Rows

NAMES = ["temperature", "pressure", "account"]


def drawn(rows: int, seed: int, leak: float) -> tuple[suspicion.Float32, suspicion.Int64]:
    """Two weak features, and one that gives the label away in a share of rows."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 4, rows)
    weak = labels[:, None] * 0.3 + draw.normal(size=(rows, 2))
    told = np.where(draw.random(rows) < leak, labels, draw.integers(0, 4, rows))
    leaking = 100 - 3 * ((told + 2) % 4) + 0.1 * draw.normal(size=rows)
    return np.column_stack([weak, leaking]).astype(np.float32), labels


def alone(leak: float) -> suspicion.FeatureScore:
    return suspicion.single_feature(*drawn(2000, 1, leak), *drawn(800, 2, leak), names=NAMES)


def test_a_feature_that_gives_the_label_away_is_named() -> None:
    found = alone(leak=1.0)
    assert found.name == "account"
    assert found.score > 0.97


def test_weak_features_do_not_match_a_good_model() -> None:
    found = alone(leak=0.0)
    assert found.score < 0.7


def test_a_feature_that_only_memorises_is_not_taken() -> None:
    features, labels = drawn(40, 3, leak=0.6)
    rows = np.arange(len(labels), dtype=np.float32)  # 32 bins for 40 rows: nearly a table
    known = np.column_stack([rows, features[:, 2]])
    test, test_labels = drawn(400, 4, leak=0.6)
    unseen = np.column_stack([np.full(400, 1e6, np.float32), test[:, 2]])
    found = suspicion.single_feature(
        known, labels, unseen, test_labels, names=["row number", "account"]
    )
    assert found.name == "account"


def test_the_answer_does_not_depend_on_the_order_of_rows() -> None:
    features, labels = drawn(2000, 1, 0.5)
    order = np.random.default_rng(9).permutation(len(labels))
    test = drawn(800, 2, 0.5)
    assert suspicion.single_feature(
        features, labels, *test, names=NAMES
    ) == suspicion.single_feature(features[order], labels[order], *test, names=NAMES)


def test_a_constant_feature_tells_nothing() -> None:
    labels = np.array([0, 1, 1, 1], np.int64)
    flat = np.ones((4, 1), np.float32)
    assert suspicion.single_feature(flat, labels, flat, labels, names=["flat"]).score == 0.5


def test_rows_and_names_have_to_fit() -> None:
    features, labels = drawn(10, 1, 0)
    with pytest.raises(ValueError, match="needs rows"):
        suspicion.single_feature(features[:0], labels[:0], features, labels, names=NAMES)
    with pytest.raises(ValueError, match="columns"):
        suspicion.single_feature(features, labels, features, labels, names=["one"])


def test_near_perfect_scores_are_named() -> None:
    found = suspicion.near_perfect({"accuracy": 0.9995, "accuracy/side=left": 0.98}, 0.999)
    assert found == ["accuracy"]
    assert suspicion.near_perfect({"accuracy": 1.0}, 1.01) == []


def test_a_channel_that_tells_the_label_is_named_though_no_feature_is_made_of_it() -> None:
    draw = np.random.default_rng(1)

    def rows(count: int) -> Rows:
        labels = draw.integers(0, 2, count)
        samples = draw.normal(size=(count, 20, 2)).astype(np.float32)
        samples[:, :, 1] += 5 * labels[:, None]
        samples[0, 3, 1] = np.nan
        features = samples[:, :, :1].mean(axis=1)
        return Rows(samples=samples, features=features, labels=labels, slices={}, entities=())

    train, test = rows(400), rows(200)
    alone = suspicion.single_feature(
        judging.with_channel_means(train),
        train.labels,
        judging.with_channel_means(test),
        test.labels,
        names=["x_mean", "mean of x", "mean of y"],
    )
    assert alone.name == "mean of y"
    assert alone.score > 0.99
