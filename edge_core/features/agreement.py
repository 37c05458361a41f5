"""Whether two computations of the same features agree, bit for bit. Decisions only; no I/O."""

from collections.abc import Hashable, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Key = Hashable

SHOWN = 3
"""Differences of a feature that a report keeps."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One value on which the two disagree."""

    row: str
    expected: float
    found: float


class FeatureAgreement(msgspec.Struct, frozen=True, kw_only=True):
    """One model input over all rows that both sides have."""

    feature: str
    compared: int
    mismatched: int
    first: list[Difference]
    """The first rows that differ, in the expected order."""


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of two computations."""

    rows: int
    """Rows that both sides have."""
    missing: int
    """Rows that only the expected side has."""
    extra: int
    """Rows that only the other side has."""
    first_missing: list[str]
    first_extra: list[str]
    features: list[FeatureAgreement]

    @property
    def holds(self) -> bool:
        """Whether both sides have the same rows, some, with the same bits."""
        whole = self.rows > 0 and self.missing == self.extra == 0
        return whole and not any(feature.mismatched for feature in self.features)


def compare(
    names: Sequence[str], expected: Mapping[Key, Float32], found: Mapping[Key, Float32]
) -> Agreement:
    """Compare rows of features by key.

    Args:
        names: of the features.
        expected: key of a row -> float32 [features].
        found: the same, computed another way. NaN agrees with nothing but the same NaN.
    """
    both = [key for key in expected if key in found]
    missing = [str(key) for key in expected if key not in found]
    extra = [str(key) for key in found if key not in expected]
    a = _stacked([expected[key] for key in both], len(names))
    b = _stacked([found[key] for key in both], len(names))
    differs = a.view(np.uint32) != b.view(np.uint32)
    return Agreement(
        rows=len(both),
        missing=len(missing),
        extra=len(extra),
        first_missing=missing[:SHOWN],
        first_extra=extra[:SHOWN],
        features=[
            FeatureAgreement(
                feature=name,
                compared=len(both),
                mismatched=int(differs[:, column].sum()),
                first=[
                    Difference(
                        row=str(both[row]),
                        expected=float(a[row, column]),
                        found=float(b[row, column]),
                    )
                    for row in np.flatnonzero(differs[:, column])[:SHOWN]
                ],
            )
            for column, name in enumerate(names)
        ],
    )


def _stacked(rows: Sequence[Float32], width: int) -> Float32:
    if not rows:
        return np.empty((0, width), np.float32)
    return np.ascontiguousarray(np.stack(rows), dtype=np.float32)
