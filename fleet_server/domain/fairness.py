"""Who is hurt by an error that the average hides: figures by slice, and evidence that one is worse.

A slice is compared with all rows of the other values of the same name. The evidence is an e-value
(:mod:`edge_core.stats.sequential`), so it may be looked at as often as one likes; the false alerts
of all slices together are at most alpha (Bonferroni over slices). Rows of one device are alike, so
they weigh less the more there are of them (design effect: Kish, "Survey Sampling", 1965).
"""

import math
from collections.abc import Mapping, Sequence

import msgspec

from edge_core.stats import sequential
from edge_core.stats.sequential import Counted

LARGEST_LOG_E = 700.0
Z95 = 1.959964
"""Two-sided 95 % of a normal distribution."""


class SliceCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Labelled rows of one slice value."""

    slice: str
    """``name=value``."""
    right: int
    wrong: int
    weighed_right: float
    """The same with each device's rows at their weight (:func:`weight`)."""
    weighed_wrong: float

    @property
    def rows(self) -> int:
        """Labelled rows."""
        return self.right + self.wrong

    @property
    def weighed(self) -> float:
        """Labelled rows at their weight."""
        return self.weighed_right + self.weighed_wrong


class SliceFigure(msgspec.Struct, frozen=True, kw_only=True):
    """How a release fares on one slice."""

    slice: str
    rows: int
    accuracy: float | None
    """Share of right rows at their weight, so that no device speaks for all; none without any."""
    low: float | None
    """95 % interval of the accuracy (Wilson score), with rows weighed as observations."""
    high: float | None
    rest: float | None
    """Accuracy on the other values of the same name."""
    disparity: float | None
    """``accuracy`` minus ``rest``."""
    e_worse: float
    """Evidence that the slice lies below the rest by more than the margin."""
    worse_at: float
    """An alert is raised when ``e_worse`` reaches this."""
    enough: bool
    """Whether there are enough rows to judge."""

    @property
    def hurt(self) -> bool:
        """Whether the slice is worse than the margin allows, beyond doubt."""
        return self.enough and self.e_worse >= self.worse_at


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """When a slice counts as hurt."""

    margin: float
    min_rows: int
    alpha: float
    rows_per_observation: float
    device_correlation: float


def weight(rows: int, rules: Rules) -> float:
    """What one of a device's labelled rows counts for: 1 over the design effect."""
    return 1 / (1 + max(0.0, rows / rules.rows_per_observation - 1) * rules.device_correlation)


def figures(counts: Sequence[SliceCounts], rules: Rules) -> list[SliceFigure]:
    """Judge every slice value against the others of its name, in the order of names.

    A name with one value alone has nothing to be compared with.
    """
    named = _by_name(counts)
    judged = sum(len(values) for values in named.values() if len(values) > 1)
    return [
        _figure(one, [other for other in values if other is not one], rules, judged)
        for _, values in sorted(named.items())
        for one in sorted(values, key=lambda value: value.slice)
    ]


def _by_name(counts: Sequence[SliceCounts]) -> dict[str, list[SliceCounts]]:
    named: dict[str, list[SliceCounts]] = {}
    for one in counts:
        named.setdefault(one.slice.partition("=")[0], []).append(one)
    return named


def _figure(
    one: SliceCounts, others: Sequence[SliceCounts], rules: Rules, judged: int
) -> SliceFigure:
    rest = SliceCounts(
        slice="",
        right=sum(other.right for other in others),
        wrong=sum(other.wrong for other in others),
        weighed_right=sum(other.weighed_right for other in others),
        weighed_wrong=sum(other.weighed_wrong for other in others),
    )
    own, beside = _share(one), _share(rest)
    low, high = _wilson(one, rules)
    return SliceFigure(
        slice=one.slice,
        rows=one.rows,
        accuracy=own,
        low=low,
        high=high,
        rest=beside,
        disparity=None if own is None or beside is None else own - beside,
        e_worse=_evidence(one, rest, rules),
        worse_at=max(1, judged) / rules.alpha,
        enough=min(one.rows, rest.rows) >= rules.min_rows,
    )


def _share(counts: SliceCounts) -> float | None:
    return counts.weighed_right / counts.weighed if counts.weighed > 0 else None


def _evidence(one: SliceCounts, rest: SliceCounts, rules: Rules) -> float:
    """E-value against "the slice is at most ``margin`` below the rest"."""
    if one.weighed <= 0 or rest.weighed <= 0:
        return 1.0
    log_e = sequential.difference_above(_counted(rest), _counted(one), rules.margin)
    tempered = sequential.tempered(log_e, rules.rows_per_observation)
    return float(f"{math.exp(min(tempered, LARGEST_LOG_E)):.9g}")


def _counted(counts: SliceCounts) -> Counted:
    return sequential.counted([(0.0, counts.weighed_wrong), (1.0, counts.weighed_right)])


def _wilson(counts: SliceCounts, rules: Rules) -> tuple[float | None, float | None]:
    """Wilson, "Probable inference, the law of succession, and statistical inference" (1927)."""
    share = _share(counts)
    if share is None:
        return None, None
    n = counts.weighed / rules.rows_per_observation
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


class ClassFigure(msgspec.Struct, frozen=True, kw_only=True):
    """How often one class is found and claimed, on one slice; shares are none without rows."""

    label: str
    rows: int
    """Rows that truly are of the class."""
    recall: float | None
    """Share of them that were answered so (true positive rate)."""
    false_alarms: float | None
    """Share of all other rows that were answered so (false positive rate)."""
    claimed: float | None
    """Share of all rows that were answered so (selection rate)."""


def by_class(confusion: Mapping[tuple[str, str], int], classes: Sequence[str]) -> list[ClassFigure]:
    """Figures of each class from counts by (label, answer)."""
    total = sum(confusion.values())
    found = []
    for label in classes:
        truly = sum(n for (truth, _), n in confusion.items() if truth == label)
        claimed = sum(n for (_, answer), n in confusion.items() if answer == label)
        hits = confusion.get((label, label), 0)
        found.append(
            ClassFigure(
                label=label,
                rows=truly,
                recall=hits / truly if truly else None,
                false_alarms=(claimed - hits) / (total - truly) if total > truly else None,
                claimed=claimed / total if total else None,
            )
        )
    return found
