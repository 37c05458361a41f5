"""Has the world changed? A sequential detector over merged periods of one release. Pure.

Fleets differ from training data by nature, so each channel's usual mixture and its usual
wandering are learned from the release's first periods in production. After that, every channel
is a gambler who stakes on its distance from the usual mixture exceeding the learned margin; the
capital restarts at 1 whenever it falls below (an e-detector: Shin, Ramdas and Rinaldo, 2023),
so false alarms come at most once in channels / alpha periods on average.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

DRIFT_VERSION = 1
STAKES = np.array([0.2, 0.5, 0.9])
CLEAR_PERIODS = 3
MARGIN_FLOOR = 0.03
MARGIN_FACTOR = 1.5

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Kind = Literal["input", "feature", "score"]
_RANK = {"input": 0, "feature": 1, "score": 2}


class WatchedChannel(msgspec.Struct, frozen=True, kw_only=True):
    """Where one channel's counts lie, from the release's reference."""

    name: str
    kind: Kind
    size: int


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How the detector learns and how sure it has to be."""

    learning_periods: int = 8
    alpha: float = 0.01
    min_rows: int = 100
    """Periods with fewer rows say nothing."""


class DriftState(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered between periods."""

    v: int = DRIFT_VERSION
    learned: list[list[int]] = []
    """Flat counts of each learning period."""
    margins: list[float] = []
    """Usual distance per channel; empty while learning."""
    log_capital: list[list[float]] = []
    """Per channel and stake, never below 0."""
    since: int | None = None
    """First period of the drift that is going on."""
    risen: list[int | None] = []
    """Per channel, the period in which its capital last left 1."""
    quiet: int = 0
    """Periods in a row that looked usual while a drift was open."""


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


def observe(
    state: DriftState,
    channels: Sequence[WatchedChannel],
    arms: Mapping[str, tuple[int, Int64]],
    period: int,
    settings: Settings,
) -> tuple[DriftState, DriftFinding | None]:
    """Take one finished period of one release.

    Args:
        state: what the last call returned.
        channels: the release's channels, in the order of the counts.
        arms: arm -> (rows, flat counts int64 [sum of sizes]).
        period: number of the period, rising.
        settings: see :class:`Settings`.

    Returns:
        The new state, and a finding when a drift opened or ended in this period.
    """
    rows = sum(count for count, _ in arms.values())
    if rows < settings.min_rows:
        return state, None
    merged: Int64 = np.sum([counts for _, counts in arms.values()], axis=0)
    if len(state.learned) < settings.learning_periods:
        return _learn(state, channels, merged, settings), None
    usual: Int64 = np.sum(np.array(state.learned), axis=0)
    distances = _distances(channels, usual, merged)
    state = _bet(state, distances, period)
    threshold = float(np.log(len(channels) / settings.alpha))
    evidence = _evidence(state)
    if state.since is None and evidence.max() >= threshold:
        first = min(
            start
            for start, e in zip(state.risen, evidence, strict=True)
            if start is not None and e >= threshold
        )
        state = msgspec.structs.replace(state, since=first, quiet=0)
        return state, _finding(state, channels, arms, usual, distances, settings, opened=True)
    if state.since is None:
        return state, None
    return _watch_end(state, channels, arms, usual, distances, settings)


def _learn(
    state: DriftState, channels: Sequence[WatchedChannel], counts: Int64, settings: Settings
) -> DriftState:
    learned = [*state.learned, counts.tolist()]
    if len(learned) < settings.learning_periods:
        return msgspec.structs.replace(state, learned=learned)
    every = np.array(learned)
    total: Int64 = every.sum(axis=0)
    wandering = np.array([_distances(channels, total - one, one) for one in every])
    margins = MARGIN_FACTOR * wandering.max(axis=0) + MARGIN_FLOOR
    return msgspec.structs.replace(
        state,
        learned=learned,
        margins=margins.tolist(),
        log_capital=[[0.0] * len(STAKES) for _ in channels],
        risen=[None] * len(channels),
    )


def _distances(channels: Sequence[WatchedChannel], usual: Int64, seen: Int64) -> Float64:
    """Total variation distance of each channel's shares, float64 [channels]."""
    starts = np.cumsum([0, *(channel.size for channel in channels)])[:-1]
    usual_total = np.maximum(np.add.reduceat(usual, starts), 1)
    seen_total = np.maximum(np.add.reduceat(seen, starts), 1)
    sizes = [channel.size for channel in channels]
    shares = usual / np.repeat(usual_total, sizes) - seen / np.repeat(seen_total, sizes)
    distances: Float64 = np.add.reduceat(np.abs(shares), starts) / 2
    return distances


def _bet(state: DriftState, distances: Float64, period: int) -> DriftState:
    margins = np.minimum(np.array(state.margins), 0.99)
    stakes = STAKES / margins[:, None]
    capital = np.array(state.log_capital)
    capital = np.maximum(capital + np.log1p(stakes * (distances - margins)[:, None]), 0.0)
    rising = capital.max(axis=1) > 0
    risen = [
        (start if start is not None else period) if up else None
        for start, up in zip(state.risen, rising, strict=True)
    ]
    return msgspec.structs.replace(state, log_capital=capital.tolist(), risen=risen)


def _evidence(state: DriftState) -> Float64:
    """Log e-value per channel: the stakes' capitals averaged."""
    capital = np.array(state.log_capital)
    top = capital.max(axis=1, keepdims=True)
    evidence: Float64 = np.log(np.exp(capital - top).mean(axis=1)) + top[:, 0]
    return evidence


def _watch_end(
    state: DriftState,
    channels: Sequence[WatchedChannel],
    arms: Mapping[str, tuple[int, Int64]],
    usual: Int64,
    distances: Float64,
    settings: Settings,
) -> tuple[DriftState, DriftFinding | None]:
    """End a drift after a few usual periods in a row."""
    usual_again = bool((distances <= np.array(state.margins)).all())
    quiet = state.quiet + 1 if usual_again else 0
    state = msgspec.structs.replace(state, quiet=quiet)
    if quiet < CLEAR_PERIODS:
        return state, None
    finding = _finding(state, channels, arms, usual, distances, settings, opened=False)
    ended = msgspec.structs.replace(
        state,
        since=None,
        quiet=0,
        log_capital=[[0.0] * len(STAKES) for _ in channels],
        risen=[None] * len(channels),
    )
    return ended, finding


def _finding(
    state: DriftState,
    channels: Sequence[WatchedChannel],
    arms: Mapping[str, tuple[int, Int64]],
    usual: Int64,
    distances: Float64,
    settings: Settings,
    *,
    opened: bool,
) -> DriftFinding:
    evidence = _evidence(state)
    drifted = sorted(
        (
            ChannelDrift(
                name=channel.name,
                kind=channel.kind,
                distance=float(distances[index]),
                margin=state.margins[index],
                e=float(np.exp(min(evidence[index], 700.0))),
            )
            for index, channel in enumerate(channels)
            if distances[index] > state.margins[index]
        ),
        key=lambda drift: (_RANK[drift.kind], drift.margin - drift.distance),
    )
    data = any(drift.kind != "score" for drift in drifted)
    by_arm = _by_arm(channels, arms, usual, drifted[0].name if drifted else None, settings)
    limit = drifted[0].margin if drifted else 0.0
    alike = len(by_arm) > 1 and all(distance > limit for distance in by_arm.values())
    assert state.since is not None
    return DriftFinding(
        open=opened,
        kind="data" if data else "prediction",
        channels=drifted,
        since=state.since,
        arms=by_arm,
        alike=alike,
        # What a device senses does not depend on the release that it runs.
        blamed_release=None,
        summary=_summary(drifted, by_arm, alike=alike, data=data, opened=opened),
    )


def _by_arm(
    channels: Sequence[WatchedChannel],
    arms: Mapping[str, tuple[int, Int64]],
    usual: Int64,
    name: str | None,
    settings: Settings,
) -> dict[str, float]:
    if name is None:
        return {}
    place = next(index for index, channel in enumerate(channels) if channel.name == name)
    return {
        arm: float(_distances(channels, usual, counts)[place])
        for arm, (rows, counts) in sorted(arms.items())
        if rows >= settings.min_rows / 10
    }


def _summary(
    drifted: Sequence[ChannelDrift],
    by_arm: Mapping[str, float],
    *,
    alike: bool,
    data: bool,
    opened: bool,
) -> str:
    if not opened:
        return "the data look as usual again"
    inputs = [drift.name for drift in drifted if drift.kind == "input"]
    names = ", ".join((inputs or [drift.name for drift in drifted])[:4])
    what = "data drift" if data else "prediction drift"
    where = (
        f"; it hits {' and '.join(by_arm)} alike, so no release is blamed"
        if alike
        else "; the release does not choose what devices sense, so it is not blamed"
        if data
        else ""
    )
    return f"{what} in {names}{where}"
