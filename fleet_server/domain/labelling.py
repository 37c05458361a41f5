"""What a label changes in the sums: joined once, corrected as often as it takes. Pure."""

from collections import Counter
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

import msgspec

Policy = Literal["policy", "holdout"]
"""Whether a device follows the model's rollouts, or is held out of them."""
ALL: Final = ""
"""Slice that holds every row."""
DAY_MS: Final = 86_400_000
MAX_DELAY_BIN: Final = 32
"""Beyond 2**31 seconds, which is 68 years."""


class OutcomeKey(NamedTuple):
    """What one count of outcomes is about."""

    day: int
    """Days since 1970 of the answer, UTC."""
    digest: str
    policy: str
    arm: str
    slice: str
    """``name=value``, or :data:`ALL`."""
    label: str
    predicted: str


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be known of an answer to count its label."""

    digest: str
    policy: str
    arm: str
    slices: Mapping[str, str]
    predicted: str
    at_ms: int


def counts_of(answer: Answered, label: str, times: int = 1) -> Counter[OutcomeKey]:
    """What one joined label adds: to all rows, and to each slice that its device declares."""
    names = [ALL, *(f"{name}={value}" for name, value in sorted(answer.slices.items()))]
    day = answer.at_ms // DAY_MS
    return Counter(
        {
            OutcomeKey(
                day, answer.digest, answer.policy, answer.arm, name, label, answer.predicted
            ): times
            for name in names
        }
    )


def change(answer: Answered, before: str | None, now: str | None) -> Counter[OutcomeKey]:
    """What replacing one label by another adds; none stands for no label.

    Whatever labels came in between, the sums are those of the latest one alone.
    """
    found: Counter[OutcomeKey] = Counter()
    if before is not None:
        found.update(counts_of(answer, before, -1))
    if now is not None:
        found.update(counts_of(answer, now))
    return Counter({key: count for key, count in found.items() if count})


def delay_bin(answered_ms: int, known_ms: int) -> int:
    """Bin i holds delays below 2**i seconds; a label from before its answer has none."""
    seconds = max(0, known_ms - answered_ms) // 1000
    return min(seconds.bit_length(), MAX_DELAY_BIN)


def quantile(bins: Mapping[int, int], share: float) -> float | None:
    """Upper end, in seconds, of the bin in which a share of the delays has come.

    Raises:
        ValueError: ``share`` is not between 0 and 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share {share} is not between 0 and 1")
    total, seen = sum(bins.values()), 0
    for number in sorted(bins):
        seen += bins[number]
        if seen >= share * total > 0:
            return float(2**number)
    return None
