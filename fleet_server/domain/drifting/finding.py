"""What a drift alert says: which kind it is, who is hit, and what to do about it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, Literal, get_args

import msgspec

from fleet_server.domain.drifting.measures import ChannelKind, Measure
from fleet_server.domain.drifting.state import EVERYONE

Kind = Literal["data", "prediction", "concept", "upstream", "seasonal"]
Response = Literal["retrain", "rethink", "fix-source", "fallback", "usual"]
RESPONSES: Final[tuple[Response, ...]] = get_args(Response)
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
SUGGESTED: Final[dict[Kind, Response]] = {
    "data": "retrain",
    "prediction": "rethink",
    "concept": "rethink",
    "upstream": "fix-source",
    "seasonal": "fallback",
}
WHY: Final[dict[Kind, str]] = {
    "data": "inputs moved: train on what the fleet sees now",
    "prediction": "answers moved and inputs did not: look at what the model makes of them",
    "concept": "answers are wrong more often and inputs did not move: the world answers otherwise",
    "upstream": "values are missing, stuck or out of range: repair what delivers them",
    "seasonal": "it looks like another hour of the week: the baseline of the seasons may answer",
}
UPSTREAM: Final = {"repetition": 0.2, "nulls": 0.05, "range": 0.2}
"""Rises of these shares that are a fault of what delivers the values."""
_RANK: Final[dict[ChannelKind, int]] = {
    "input": 0,
    "feature": 1,
    "score": 2,
    "outcome": 3,
    "embedding": 4,
}
MOST_NAMES = 4
ALIKE = 2.0
"""Standard deviations, all in one direction, on every arm."""
ENDED = "the data look as usual again"
UNSEEN = "neither inputs nor scores tell of it"
"""Of a drift that the embedding alone shows."""
SAYS: Final[dict[Measure, str]] = {
    "position": "moved by {by:+.2f} sd",
    "spread": "spread {usual:.2f} -> {now:.2f} sd",
    "mixture": "{now:.0%} of it elsewhere than in training (usual {usual:.0%})",
    "repetition": "one value in {now:.0%} (usual {usual:.0%})",
    "nulls": "{now:.1%} missing (usual {usual:.1%})",
    "range": "{now:.0%} outside the training range (usual {usual:.0%})",
}


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one channel in one slice that left what was expected of it."""

    channel: str
    kind: ChannelKind
    measure: Measure
    slice: str
    """``name=value``; all rows where empty."""
    usual: float
    """Expected: standard deviations of training, or a share."""
    now: float
    deviations: float
    """Departure in standard deviations of what is usual."""
    e: float
    """Evidence: capital of who bet on it."""

    @property
    def fault(self) -> bool:
        """Whether a source that delivers no true values makes it so."""
        least = UPSTREAM.get(self.measure)
        # A feature may be missing by itself; it leaves its range with any input that moves.
        sensed = self.kind == "input" or (self.kind == "feature" and self.measure == "nulls")
        return sensed and least is not None and self.now - self.usual >= least

    @property
    def text(self) -> str:
        """In words."""
        if self.kind == "outcome":
            return f"{self.now:.1%} wrong (usual {self.usual:.1%})"
        return SAYS[self.measure].format(usual=self.usual, now=self.now, by=self.now - self.usual)


class DriftFinding(msgspec.Struct, frozen=True, kw_only=True):
    """A drift that begins or ends."""

    open: bool
    kind: Kind
    figures: list[Figure]
    """Inputs first, each group by how far it departs."""
    channels: list[str]
    """Names, in that order."""
    slices: list[str]
    """Who is hit; empty for everyone."""
    since: int
    """Period."""
    arms: dict[str, float]
    """Departure of the first figure by arm, for arms with enough rows."""
    alike: bool
    """Candidate and comparison are hit alike."""
    blamed_release: str | None
    like_hour: int | None
    """Hour of the week, Thursday 0 h UTC being 0, that looks as this one does."""
    response: Response
    """Suggested."""
    summary: str


def rank(figure: Figure) -> tuple[int, float]:
    """Inputs before what is computed from them, the farthest from usual first."""
    return _RANK[figure.kind], -figure.deviations


def describe(
    figures: Sequence[Figure],
    arms: Mapping[str, float],
    *,
    watched: Sequence[str],
    since: int,
    opened: bool,
    like_hour: int | None,
) -> DriftFinding:
    """Put a drift into words.

    Args:
        figures: those that left what was expected, at least one.
        arms: how far the first of them, by :func:`rank`, departs on each arm.
        watched: slices that are watched.
        since: the first period of the drift.
        opened: whether it begins; it ends otherwise.
        like_hour: hour of the week that looks as the present does.
    """
    ranked = sorted(figures, key=rank)
    kind = _kind(ranked, like_hour)
    signs = {departure > 0 for departure in arms.values()}
    alike = len(arms) > 1 and len(signs) == 1 and min(map(abs, arms.values())) > ALIKE
    hit = _hit(ranked, watched)
    return DriftFinding(
        open=opened,
        kind=kind,
        figures=ranked,
        channels=list(dict.fromkeys(figure.channel for figure in ranked)),
        slices=hit,
        since=since,
        arms=dict(arms),
        alike=alike,
        # All arms run the same release here, and what a device senses does not depend on it.
        blamed_release=None,
        like_hour=like_hour,
        response=SUGGESTED[kind],
        summary=_summary(ranked, kind, hit, arms, alike=alike) if opened else ENDED,
    )


def _kind(ranked: Sequence[Figure], like_hour: int | None) -> Kind:
    if any(figure.fault for figure in ranked):
        return "upstream"
    kinds = {figure.kind for figure in ranked}
    if not kinds & {"input", "feature"}:
        return "concept" if "outcome" in kinds else "prediction"
    return "data" if like_hour is None else "seasonal"


def _hit(ranked: Sequence[Figure], watched: Sequence[str]) -> list[str]:
    """Slices that drift, where not all of a name's slices do; the farthest first."""
    departs: Counter[str] = Counter()
    for figure in ranked:
        departs[figure.slice] = max(departs[figure.slice], round(figure.deviations * 1000))
    found = [name for name, _ in departs.most_common() if name != EVERYONE]
    named = {name.split("=")[0] for name in found}
    part = {
        key for key in named if {name for name in watched if name.split("=")[0] == key} - set(found)
    }
    return [name for name in found if name.split("=")[0] in part]


def _summary(
    ranked: Sequence[Figure],
    kind: Kind,
    hit: Sequence[str],
    arms: Mapping[str, float],
    *,
    alike: bool,
) -> str:
    faults = [figure for figure in ranked if figure.fault]
    shown = faults if kind == "upstream" else ranked
    first = shown[0]
    same = dict.fromkeys(figure.channel for figure in shown if figure.kind == first.kind)
    names = ", ".join(list(same)[:MOST_NAMES])
    more = f" and {len(same) - MOST_NAMES} more" if len(same) > MOST_NAMES else ""
    where = f" where {' and '.join(hit[:MOST_NAMES])}" if hit else ""
    told = f"{_NAMES[kind]} in {names}{more}{where}: {first.channel} {first.text}"
    if alike:
        return f"{told}; it hits {' and '.join(arms)} alike, so no release is blamed"
    if kind in ("data", "upstream", "seasonal"):
        return f"{told}; a release does not choose what devices sense: none is blamed"
    return f"{told}; {UNSEEN}" if first.kind == "embedding" else told


_NAMES: Final[dict[Kind, str]] = {
    "data": "data drift",
    "prediction": "prediction drift",
    "concept": "concept drift",
    "upstream": "a fault of the source",
    "seasonal": "a shift of the season",
}
