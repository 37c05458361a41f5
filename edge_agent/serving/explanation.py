"""What each input did to an answer, as applications see it."""

from typing import Literal

import msgspec

By = Literal["inputs", "features"]
"""What is occluded: raw inputs or features."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Why rows were answered as they were."""

    model: str
    version: str
    digest: str
    target: str
    by: By
    names: list[str]
    """What was occluded: raw inputs or features."""
    classes: list[str]
    labels: list[str]
    """Of each row."""
    confidences: list[float]
    """Probability of each row's label."""
    contributions: list[list[float]]
    """[rows, names]: by how much the label's probability was higher than without the input."""
    per_class: list[list[list[float]]] = []
    """[rows, names, classes]: the same for every class; empty where not asked for."""
