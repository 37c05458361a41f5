"""Has the world changed? A sequential detector over merged periods of one release. Pure.

Fleets differ from training data by nature, so each channel's usual mixture, and how far it
wanders, are learned from the release's first periods in production, and go on being learned from
the usual ones among the next. Neighbouring periods are merged before they are compared, because
activities that follow one another make single periods wander far more.

A score says how far beyond the learned margin the distance goes, from 0 at the margin to 1 at
twice the margin. While the world is as usual, scores are nearly always 0; for every channel a
gambler stakes on their mean exceeding :data:`USUAL_SCORE`. The capital restarts at 1 whenever it
falls below (an e-detector: Shin, Ramdas and Rinaldo, 2023); the average over all channels opens
an alert at 1 / alpha.

Rows of a candidate are left out: its few devices are no fair sample of the fleet. What they
sense is seen through the incumbent, which runs beside the candidate on the same rows (arm
``shadow`` of the incumbent).
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from edge_core.stats.divergence import total_variation
from fleet_server.domain import drift_finding
from fleet_server.domain.drift_finding import DriftFinding as DriftFinding
from fleet_server.domain.drift_finding import WatchedChannel as WatchedChannel

DRIFT_VERSION = 1
STAKES = np.array([0.2, 0.5, 0.9])
USUAL_SCORE = 0.02
"""Mean score that an unchanged world may have."""
MERGED_PERIODS = 3
CLEAR_PERIODS = 2
MARGIN_FLOOR = 0.03
MARGIN_FACTOR = 1.5
NOISE_FACTOR = 2.0
LARGEST_MARGIN = 0.9
"""A channel that wanders more has no say."""
LARGEST_LOG_E = 700.0

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How the detector learns and how sure it has to be."""

    learning_periods: int = 8
    """Periods before the first alert is possible."""
    more_periods: int = 32
    """Usual periods after those that are learned from as well."""
    alpha: float = 0.01
    min_rows: int = 100
    """Periods with fewer rows say nothing."""


class DriftState(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered between periods. Counts are flat, for all channels."""

    v: int = DRIFT_VERSION
    judged: int = -1
    """Last period that had enough rows to say something."""
    learned: int = 0
    """Number of periods learned from."""
    usual: list[int] = []
    """Counts of all of them."""
    rows: int = 0
    """Rows of all of them."""
    recent: list[list[int]] = []
    """Counts of the last periods; of all periods while learning."""
    recent_rows: list[int] = []
    margins: list[float] = []
    """Usual distance per channel; empty while learning."""
    log_capital: list[list[float]] = []
    """Per channel and stake, never below 0."""
    risen: list[int | None] = []
    """Per channel, the period in which its capital last left 1."""
    since: int | None = None
    """First period of the drift that is going on."""
    drifted: list[int] = []
    """Places of the channels that the open drift is about."""
    quiet: int = 0
    """Periods in a row that looked usual while a drift was open."""


class _Period(msgspec.Struct, frozen=True, kw_only=True):
    """The last few periods beside what is usual."""

    channels: Sequence[WatchedChannel]
    arms: Mapping[str, tuple[int, Int64]]
    """Of the last period alone."""
    number: int
    usual: Int64
    counts: Int64
    """Of the last period alone."""
    rows: int
    margins: Float64
    """For as many rows as there are."""
    distances: Float64


def observe(
    state: DriftState,
    channels: Sequence[WatchedChannel],
    arms: Mapping[str, tuple[int, Int64]],
    period: int,
    settings: Settings,
    noise: Sequence[float] = (),
) -> tuple[DriftState, DriftFinding | None]:
    """Take one finished period of one release.

    Args:
        state: what the last call returned.
        channels: the release's channels, in the order of the counts.
        arms: arm -> (rows, flat counts int64 [sum of sizes]).
        period: number of the period, rising.
        settings: see :class:`Settings`.
        noise: by channel, how far noise for privacy alone moves what is compared; none for exact
            counts. Margins learned from noisy periods hold some of it already; they widen so that
            fewer rows or more devices do not look like a change.

    Returns:
        The new state, and a finding when a drift opened or ended in this period.
    """
    arms = {arm: seen for arm, seen in arms.items() if arm != "candidate"}
    rows = sum(count for count, _ in arms.values())
    if rows < settings.min_rows:
        return state, None
    counts: Int64 = np.sum([seen for _, seen in arms.values()], axis=0)
    state = msgspec.structs.replace(_remember(state, counts, rows), judged=period)
    if not state.margins:
        return _learn(state, channels, counts, rows, settings), None
    usual = np.array(state.usual)
    merged = np.sum(state.recent, axis=0)
    seen = _Period(
        channels=channels,
        arms=arms,
        number=period,
        usual=usual,
        counts=counts,
        rows=rows,
        margins=_margins(state) + NOISE_FACTOR * np.array(noise or 0.0),
        distances=_distances(channels, usual, merged),
    )
    state = _bet(state, seen)
    if state.since is None:
        return _watch_begin(state, seen, settings)
    return _watch_end(state, seen, settings)


def _remember(state: DriftState, counts: Int64, rows: int) -> DriftState:
    kept = MERGED_PERIODS - 1 if state.margins else len(state.recent)
    return msgspec.structs.replace(
        state,
        recent=[*state.recent[len(state.recent) - kept :], counts.tolist()],
        recent_rows=[*state.recent_rows[len(state.recent) - kept :], rows],
    )


def _learn(
    state: DriftState,
    channels: Sequence[WatchedChannel],
    counts: Int64,
    rows: int,
    settings: Settings,
) -> DriftState:
    state = _learned(state, counts, rows)
    if state.learned < max(settings.learning_periods, MERGED_PERIODS + 1):
        return state
    every, total = np.array(state.recent), np.array(state.usual)
    merged = [every[end - MERGED_PERIODS : end].sum(axis=0) for end in _ends(len(every))]
    wandering = np.array([_distances(channels, total - some, some) for some in merged])
    margins = MARGIN_FACTOR * wandering.max(axis=0) + MARGIN_FLOOR
    return at_rest(msgspec.structs.replace(state, margins=margins.tolist()))


def _ends(periods: int) -> range:
    return range(MERGED_PERIODS, periods + 1)


def _learned(state: DriftState, counts: Int64, rows: int) -> DriftState:
    usual = counts + np.array(state.usual) if state.usual else counts
    return msgspec.structs.replace(
        state, learned=state.learned + 1, usual=usual.tolist(), rows=state.rows + rows
    )


def at_rest(state: DriftState) -> DriftState:
    """No capital, no drift."""
    return msgspec.structs.replace(
        state,
        log_capital=[[0.0] * len(STAKES) for _ in state.margins],
        risen=[None] * len(state.margins),
        since=None,
        drifted=[],
        quiet=0,
    )


def _margins(state: DriftState) -> Float64:
    """Learned margins, wider where there are fewer rows, which wander more by chance."""
    usual = state.rows / state.learned * len(state.recent)
    widened: Float64 = np.array(state.margins) * np.sqrt(max(1.0, usual / sum(state.recent_rows)))
    return widened


def _distances(channels: Sequence[WatchedChannel], usual: Int64, seen: Int64) -> Float64:
    return total_variation([channel.size for channel in channels], usual, seen)


def _bet(state: DriftState, seen: _Period) -> DriftState:
    scores = np.clip(seen.distances / seen.margins - 1, 0.0, 1.0)
    scores = np.where(seen.margins < LARGEST_MARGIN, scores, 0.0)
    gain = np.log1p(STAKES / USUAL_SCORE * (scores - USUAL_SCORE)[:, None])
    capital = np.maximum(np.array(state.log_capital) + gain, 0.0)
    rising = capital.max(axis=1) > 0
    risen = [
        (start if start is not None else seen.number) if up else None
        for start, up in zip(state.risen, rising, strict=True)
    ]
    return msgspec.structs.replace(state, log_capital=capital.tolist(), risen=risen)


def _evidence(state: DriftState) -> Float64:
    """Log e-value per channel: the stakes' capitals averaged."""
    return _log_mean_exps(np.array(state.log_capital).T)


def _log_mean_exps(values: Float64) -> Float64:
    """Over the first axis, without overflow."""
    top = values.max(axis=0)
    mean: Float64 = np.log(np.exp(values - top).mean(axis=0)) + top
    return mean


def _watch_begin(
    state: DriftState, seen: _Period, settings: Settings
) -> tuple[DriftState, DriftFinding | None]:
    """Open a drift on enough evidence, else learn from a period that was usual throughout."""
    beyond = (seen.distances > seen.margins).any()
    if _log_mean_exps(_evidence(state)) < -np.log(settings.alpha) or not beyond:
        if not beyond and state.learned < settings.learning_periods + settings.more_periods:
            state = _learn_more(state, seen)
        return state, None
    # What alerts needs a safety factor; once that is sure, so is what merely looks new beside it.
    drifted = np.flatnonzero(seen.distances > seen.margins / MARGIN_FACTOR).tolist()
    starts = [state.risen[place] for place in drifted]
    since = min((start for start in starts if start is not None), default=seen.number)
    state = msgspec.structs.replace(state, since=since, drifted=drifted, quiet=0)
    return state, _finding(state, seen, settings, opened=True)


def _learn_more(state: DriftState, seen: _Period) -> DriftState:
    margins = np.maximum(state.margins, MARGIN_FACTOR * seen.distances + MARGIN_FLOOR)
    state = msgspec.structs.replace(state, margins=margins.tolist())
    return _learned(state, seen.counts, seen.rows)


def _watch_end(
    state: DriftState, seen: _Period, settings: Settings
) -> tuple[DriftState, DriftFinding | None]:
    """End a drift after a few periods in a row in which its channels were as usual."""
    usual_again = bool((seen.distances <= seen.margins)[state.drifted].all())
    state = msgspec.structs.replace(state, quiet=state.quiet + 1 if usual_again else 0)
    if state.quiet < CLEAR_PERIODS:
        return state, None
    return at_rest(state), _finding(state, seen, settings, opened=False)


def _finding(state: DriftState, seen: _Period, settings: Settings, *, opened: bool) -> DriftFinding:
    evidence = _evidence(state)
    drifted = [
        drift_finding.ChannelDrift(
            name=seen.channels[place].name,
            kind=seen.channels[place].kind,
            distance=float(seen.distances[place]),
            margin=float(seen.margins[place]),
            e=float(np.exp(min(evidence[place], LARGEST_LOG_E))),
        )
        for place in state.drifted
    ]
    arms = _by_arm(seen, min(drifted, key=drift_finding.rank).name, settings)
    assert state.since is not None
    return drift_finding.describe(drifted, arms, since=state.since, opened=opened)


def _by_arm(seen: _Period, name: str, settings: Settings) -> dict[str, float]:
    """Distance of one channel for each arm with enough rows.

    Beside the incumbent's other arms, its shadow stands for the devices of the candidate.
    """
    place = next(at for at, channel in enumerate(seen.channels) if channel.name == name)
    serving = {"incumbent", "control"} & seen.arms.keys()
    return {
        "candidate" if arm == "shadow" and serving else arm: float(
            _distances(seen.channels, seen.usual, counts)[place]
        )
        for arm, (rows, counts) in sorted(seen.arms.items())
        if rows >= settings.min_rows / 10
    }
