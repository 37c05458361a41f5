"""What a drift alert says. Pure; decides neither when to alert nor what to do."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

Kind = Literal["input", "feature", "score"]
_RANK: dict[Kind, int] = {"input": 0, "feature": 1, "score": 2}
MOST_NAMES = 4
ENDED = "the data look as usual again"


class WatchedChannel(msgspec.Struct, frozen=True, kw_only=True):
    """Where one channel's counts lie, from the release's reference."""

    name: str
    kind: Kind
    size: int


class ChannelDrift(msgspec.Struct, frozen=True, kw_only=True):
    """One channel that left its usual mixture."""

    name: str
    kind: Kind
    distance: float
    """Total variation from the usual mixture, 0 to 1."""
    margin: float
    e: float


class DriftFinding(msgspec.Struct, frozen=True, kw_only=True):
    """A drift that begins, goes on or ends."""

    open: bool
    kind: Literal["data", "prediction"]
    channels: list[ChannelDrift]
    """Inputs first, each group by distance."""
    since: int
    arms: dict[str, float]
    """Distance of the first channel by arm, for arms with enough rows."""
    alike: bool
    """Candidate and comparison are hit alike."""
    blamed_release: str | None
    summary: str


def rank(drift: ChannelDrift) -> tuple[int, float]:
    """Inputs before what is computed from them, the farthest from usual first."""
    return _RANK[drift.kind], drift.margin - drift.distance


def describe(
    drifted: Sequence[ChannelDrift], arms: Mapping[str, float], *, since: int, opened: bool
) -> DriftFinding:
    """Put a drift into words.

    Args:
        drifted: the channels that left their usual mixture, at least one.
        arms: how far the first of them, by :func:`rank`, is from usual on each arm.
        since: the first period of the drift.
        opened: whether it begins; it ends otherwise.
    """
    ranked = sorted(drifted, key=rank)
    data = any(drift.kind != "score" for drift in ranked)
    alike = len(arms) > 1 and all(distance > ranked[0].margin for distance in arms.values())
    return DriftFinding(
        open=opened,
        kind="data" if data else "prediction",
        channels=ranked,
        since=since,
        arms=dict(arms),
        alike=alike,
        # All arms run the same release here, and what a device senses does not depend on it.
        blamed_release=None,
        summary=_summary(ranked, arms, alike=alike, data=data) if opened else ENDED,
    )


def _summary(
    ranked: Sequence[ChannelDrift], arms: Mapping[str, float], *, alike: bool, data: bool
) -> str:
    inputs = [drift.name for drift in ranked if drift.kind == "input"]
    names = ", ".join((inputs or [drift.name for drift in ranked])[:MOST_NAMES])
    what = "data drift" if data else "prediction drift"
    if alike:
        return f"{what} in {names}; it hits {' and '.join(arms)} alike, so no release is blamed"
    if data:
        return f"{what} in {names}; a release does not choose what devices sense: none is blamed"
    return f"{what} in {names}"
