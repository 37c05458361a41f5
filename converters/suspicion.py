"""Results that are too good to be true: most often a leak of the label into the inputs.

Source: Kaufman et al., "Leakage in Data Mining" (2012). Decisions only; no I/O.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from converters import metrics

BINS = 32
"""Quantile bins of one feature: enough to see several thresholds, few enough not to memorise."""

SMALL = 0.01
"""Stands for a label that a bin did not hold."""

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


class FeatureScore(NamedTuple):
    """What one feature reaches without the others."""

    name: str
    score: float
    """Area under the ROC curve on the test rows, its mean over classes; .5 is chance."""


def near_perfect(metrics: Mapping[str, float], limit: float) -> list[str]:
    """Names of the metrics at or above ``limit``.

    Args:
        metrics: figures for which 1 is perfect, overall or by slice.
        limit: from the recipe's gate ``suspicious_score``; above 1 it never strikes.
    """
    return [name for name, value in metrics.items() if value >= limit]


def single_feature(
    features: Float32,
    labels: Int64,
    test_features: Float32,
    test_labels: Int64,
    *,
    names: Sequence[str],
) -> FeatureScore:
    """The best classifier that sees one feature only.

    For each feature: how frequent each label is in each of up to 32 quantile bins (the Bayes rule
    of a histogram), learned on training rows. A feature counts for the lower of its scores on
    training and test rows: one that memorises does badly on test rows, and one that is lucky there
    did badly before. Deterministic: ties go to the first feature.

    Args:
        features: float32 [rows, features].
        labels: class numbers, int64 [rows].
        test_features: float32 [test rows, features].
        test_labels: int64 [test rows].
        names: of the features.

    Raises:
        ValueError: no rows or no features, or the shapes do not fit.
    """
    if not (len(labels) and len(test_labels) and len(names)):
        raise ValueError("a single-feature check needs rows and features")
    if features.shape[1:] != (len(names),) or test_features.shape[1:] != (len(names),):
        raise ValueError(f"features do not have the {len(names)} columns that are named")
    best, highest = FeatureScore(names[0], 0.0), -1.0
    for column, name in enumerate(names):
        own, tested = _scores(features[:, column], labels, test_features[:, column], test_labels)
        if min(own, tested) > highest:
            best, highest = FeatureScore(name, tested), min(own, tested)
    return best


def _scores(
    column: Float32, labels: Int64, test_column: Float32, test_labels: Int64
) -> tuple[float, float]:
    """Area of one feature alone on training and on test rows."""
    inner = np.linspace(0, 1, BINS + 1)[1:-1]
    edges = np.unique(np.quantile(column, inner, method="higher"))
    own, tested = (np.searchsorted(edges, values, "right") for values in (column, test_column))
    answers = _answers(own, labels, int(max(labels.max(), test_labels.max())) + 1)
    return metrics.roc_auc(answers[own], labels), metrics.roc_auc(answers[tested], test_labels)


def _answers(places: Int64, labels: Int64, classes: int) -> Float32:
    """Log of each label's share in each bin, float32 [BINS, classes]; an empty bin's are equal."""
    counts = np.bincount(places * classes + labels, minlength=BINS * classes) + SMALL
    table = counts.reshape(BINS, classes)
    return np.asarray(np.log(table / table.sum(axis=1, keepdims=True)), np.float32)
