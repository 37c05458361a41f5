"""Figures of merit of a classifier, in numpy alone.

All take ``logits`` float32 [rows, classes] and ``labels`` int64 [rows], class numbers.
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Metric = Callable[[Float32, Int64], float]

ECE_BINS = 15


def accuracy(logits: Float32, labels: Int64) -> float:
    """Share of rows whose highest logit is the label's; 0 to 1, higher is better."""
    _check(logits, labels)
    return float((logits.argmax(axis=1) == labels).mean())


def macro_f1(logits: Float32, labels: Int64) -> float:
    """Mean over classes of 2 TP / (2 TP + FP + FN); 0 to 1, higher is better.

    Classes that are neither true nor answered anywhere are left out. Source: Opitz and Burst,
    "Macro F1 and Macro F1" (2019), the mean of F1 scores.
    """
    right, true, answered = _counts(logits, labels)
    both = true + answered
    seen = both > 0
    return float((2 * right[seen] / both[seen]).mean())


def balanced_accuracy(logits: Float32, labels: Int64) -> float:
    """Mean recall over the classes that have rows; 0 to 1, higher is better.

    Source: Brodersen et al., "The Balanced Accuracy and Its Posterior Distribution" (2010).
    """
    right, true, _ = _counts(logits, labels)
    seen = true > 0
    return float((right[seen] / true[seen]).mean())


def ece(logits: Float32, labels: Int64) -> float:
    """Expected calibration error over 15 equal bins of confidence; 0 to 1, lower is better.

    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017), section 2.
    """
    _check(logits, labels)
    shares = np.exp(_log_softmax(logits))
    confidence = shares.max(axis=1)
    right = shares.argmax(axis=1) == labels
    place = np.minimum((confidence * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    gaps = np.bincount(place, weights=right - confidence, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def log_loss(logits: Float32, labels: Int64) -> float:
    """Mean negative log-likelihood of the label in nats; 0 or more, lower is better."""
    _check(logits, labels)
    return float(-_log_softmax(logits)[np.arange(len(labels)), labels].mean())


def roc_auc(logits: Float32, labels: Int64) -> float:
    """Area under the ROC curve, its mean over the classes with rows; 0 to 1, .5 is chance.

    Each class against the others, by its log-odds; ties count half. 0.5 where all rows are of one
    class. Source: Hand and Till, "A Simple Generalisation of the Area Under the ROC Curve" (2001).
    """
    _check(logits, labels)
    scores = _log_softmax(logits)
    found = []
    for place in range(logits.shape[1]) if logits.shape[1] > 2 else (1,):
        others = np.delete(scores, place, axis=1)
        odds = scores[:, place] - np.logaddexp.reduce(others, axis=1)
        mine = labels == place
        if 0 < mine.sum() < len(labels):
            found.append(area(odds, mine))
    return float(np.mean(found)) if found else 0.5


def area(scores: Float64, positive: npt.NDArray[np.bool_]) -> float:
    """Chance that a positive row scores above another; ties count half.

    Args:
        scores: float64 [rows].
        positive: bool [rows], of both kinds.
    """
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    ones = int(positive.sum())
    above = float(ranks[positive].sum()) - ones * (ones + 1) / 2
    return above / (ones * (len(scores) - ones))


METRICS: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "balanced_accuracy": balanced_accuracy,
    "ece": ece,
    "log_loss": log_loss,
    "roc_auc": roc_auc,
}
"""Built-in metrics by the name that a recipe uses."""

LOWER_IS_BETTER = frozenset({"ece", "log_loss"})
"""Built-in metrics that cannot be a recipe's first, since gates read a drop as a loss."""


def _check(logits: Float32, labels: Int64) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ValueError(
            f"metrics need logits [rows, classes] and labels [rows] with at least one row, "
            f"not {logits.shape} and {labels.shape}"
        )


def _counts(logits: Float32, labels: Int64) -> tuple[Float64, Float64, Float64]:
    """By class, float64 [classes]: rows answered rightly, true rows, answered rows."""
    _check(logits, labels)
    best, classes = logits.argmax(axis=1), logits.shape[1]
    right, true, answered = (
        np.bincount(chosen, minlength=classes).astype(np.float64)
        for chosen in (labels[best == labels], labels, best)
    )
    return right, true, answered


def _log_softmax(logits: Float32) -> Float64:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
