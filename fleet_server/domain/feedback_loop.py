"""Does the model change what it is judged by? Labels of held-out devices beside all others'.

A model whose answers are acted upon makes its own labels: a warned customer does not churn. Devices
that stay on the baseline policy show what would have happened (Sculley et al., "Hidden technical
debt in machine learning systems", 2015, on feedback loops). Both groups were drawn at random, so
what differs between them is the model's doing.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import msgspec


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Devices of one policy."""

    devices: int
    rows: int
    """Answers."""
    labelled: int
    """Those of them whose label came."""
    labels: Mapping[str, int]
    """By class, of labels that the server knows."""
    right: int
    wrong: int


class RateDifference(msgspec.Struct, frozen=True, kw_only=True):
    """One rate inside and outside of the holdout."""

    what: str
    """``labelled``, ``accuracy``, or ``label=CLASS``."""
    holdout: float | None
    others: float | None
    difference: float | None
    """Others minus holdout."""
    low: float | None
    high: float | None
    """95 % interval of the difference, all differences together (Bonferroni)."""
    enough: bool

    @property
    def differs(self) -> bool:
        """Whether the difference is more than chance gives."""
        return self.enough and self.low is not None and (self.low > 0 or (self.high or 0) < 0)


def compare(
    holdout: Group, others: Group, classes: Sequence[str], *, design_effect: float, min_rows: int
) -> list[RateDifference]:
    """Compare label rates, accuracy and the mixture of labels of two random groups.

    Args:
        holdout: devices on the baseline policy.
        others: devices that follow the model's rollouts.
        classes: the model's.
        design_effect: how many rows say what one independent row would.
        min_rows: rows of either group below which nothing is said.
    """
    pairs = [
        ("labelled", (holdout.labelled, holdout.rows), (others.labelled, others.rows)),
        (
            "accuracy",
            (holdout.right, holdout.right + holdout.wrong),
            (others.right, others.right + others.wrong),
        ),
        *(
            (
                f"label={name}",
                (holdout.labels.get(name, 0), sum(holdout.labels.values())),
                (others.labels.get(name, 0), sum(others.labels.values())),
            )
            for name in classes
        ),
    ]
    z = NormalDist().inv_cdf(1 - 0.05 / (2 * len(pairs)))
    return [_difference(what, a, b, z, design_effect, min_rows) for what, a, b in pairs]


def _difference(
    what: str,
    inside: tuple[int, int],
    outside: tuple[int, int],
    z: float,
    effect: float,
    least: int,
) -> RateDifference:
    if not inside[1] or not outside[1]:
        return RateDifference(
            what=what,
            holdout=inside[0] / inside[1] if inside[1] else None,
            others=outside[0] / outside[1] if outside[1] else None,
            difference=None,
            low=None,
            high=None,
            enough=False,
        )
    ours, theirs = inside[0] / inside[1], outside[0] / outside[1]
    # Agresti and Caffo (2000): one row more of either kind in each group.
    shares = [(hits + 1) / (rows + 2) for hits, rows in (inside, outside)]
    variance = sum(
        p * (1 - p) * effect / (rows + 2)
        for p, (_, rows) in zip(shares, (inside, outside), strict=True)
    )
    middle, half = shares[1] - shares[0], z * math.sqrt(variance)
    return RateDifference(
        what=what,
        holdout=ours,
        others=theirs,
        difference=theirs - ours,
        low=middle - half,
        high=middle + half,
        enough=min(inside[1], outside[1]) >= least,
    )
