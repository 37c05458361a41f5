"""Figures of merit against scikit-learn's and against hand-made cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, recall_score
from sklearn.metrics import log_loss as reference_log_loss

from converters import metrics

CLASSES = 5


def drawn(seed: int, rows: int = 200) -> tuple[metrics.Float32, metrics.Int64]:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, CLASSES, rows)
    logits = draw.normal(size=(rows, CLASSES)).astype(np.float32)
    logits[np.arange(rows), labels] += 1
    return logits, labels


@given(st.integers(0, 10_000), st.integers(1, 60))
def test_they_agree_with_scikit_learn(seed: int, rows: int) -> None:
    logits, labels = drawn(seed, rows)
    best = logits.argmax(axis=1)
    assert metrics.accuracy(logits, labels) == pytest.approx((best == labels).mean())
    assert metrics.macro_f1(logits, labels) == pytest.approx(
        f1_score(labels, best, average="macro")
    )
    recall = recall_score(labels, best, labels=np.unique(labels), average="macro")
    assert metrics.balanced_accuracy(logits, labels) == pytest.approx(recall)
    shares = np.exp(logits.astype(np.float64))
    shares /= shares.sum(axis=1, keepdims=True)
    assert metrics.log_loss(logits, labels) == pytest.approx(
        reference_log_loss(labels, shares, labels=range(CLASSES)), rel=1e-6
    )


def test_calibration_error_is_the_gap_between_confidence_and_truth() -> None:
    logits = np.zeros((100, 2), np.float32)
    logits[:, 0] = np.log(0.8 / 0.2)  # always 80 % sure of class 0
    right = np.zeros(100, np.int64)
    right[80:] = 1
    assert metrics.ece(logits, right) == pytest.approx(0, abs=1e-6)
    assert metrics.ece(logits, np.ones(100, np.int64)) == pytest.approx(0.8)


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    assert metrics.log_loss(logits, np.array([0, 1])) == 0
    assert metrics.ece(logits, np.array([0, 1])) == 0


@pytest.mark.parametrize("metric", metrics.METRICS.values(), ids=metrics.METRICS)
def test_no_rows_and_odd_shapes_are_bugs(metric: metrics.Metric) -> None:
    for logits, labels in (
        (np.empty((0, 3), np.float32), np.empty(0, np.int64)),
        (np.zeros((4, 3), np.float32), np.zeros(3, np.int64)),
    ):
        with pytest.raises(ValueError, match="at least one row"):
            metric(logits, labels)
