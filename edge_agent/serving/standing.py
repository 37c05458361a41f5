"""How serving stands now, for status and reported state: who answers, why, and where it runs.

Of several models, texts say which is meant, and numbers are sums.
"""

from collections.abc import Callable, Iterable, Mapping

from edge_agent.serving.engine import Engine
from edge_agent.serving.lane import Lane
from edge_agent.serving.release import LoadedRelease
from edge_core.messages.telemetry import FallbackMode, Placement

Plain = str | int | float | bool | None


def described(engine: Engine) -> dict[str, Plain]:
    """Flat values for a person."""
    policy = engine.policy
    lanes = [lane for lane in engine.lanes if lane.active is not None]
    releases = [lane.active for lane in lanes if lane.active is not None]
    ends = [mode.until_ms for mode in modes(engine) if mode.until_ms is not None]
    absent = (name for release in releases for name in release.placed.absent)

    def each(tell: Callable[[LoadedRelease], str | None]) -> str | None:
        return _by_model((release.ref.model, tell(release)) for release in releases)

    def begun(lane: Lane) -> str:
        return lane.remembering.beginning

    return {
        "active": ", ".join(release.ref.name for release in releases) or None,
        "digest": each(lambda release: release.ref.digest),
        "features": each(lambda release: release.kind),
        "runtime": each(lambda release: release.session.runtime),
        "shadow": ", ".join(lane.shadow.ref.name for lane in engine.lanes if lane.shadow) or None,
        "rows": sum(lane.totals.rows for lane in lanes),
        "errors": sum(lane.totals.errors for lane in lanes),
        "cached": sum(lane.totals.cached for lane in lanes),
        "refused_requests": engine.tally.refused_requests,
        "answers": each(lambda release: _answers(policy.mode(release))),
        "fallback_reason": each(lambda release: _reason(policy.mode(release))),
        "fallback_until_ms": min(ends, default=None),
        **{f"fallback_{cause}": rows for cause, rows in policy.rows.items()},
        "missing_inputs": policy.missing,
        "shadow_dropped": engine.shadow_dropped,
        "placement": each(lambda release: _listed(release.placed.operators)),
        "fell_back_operators": sum(release.placed.fell_back for release in releases),
        "absent_providers": ", ".join(dict.fromkeys(absent)),
        "memory": _by_model((lane.active.ref.model, begun(lane)) for lane in lanes if lane.active),
        "memory_refused": sum(lane.remembering.refused for lane in engine.lanes),
        "clock_held": sum(lane.remembering.clock_held for lane in engine.lanes),
        **_sums(lane.remembering.counts for lane in engine.lanes),
        "unlogged_batches": engine.unlogged,
    }


def modes(engine: Engine) -> list[FallbackMode]:
    """Models whose baseline answers now, whatever comes."""
    found = [engine.policy.mode(lane.active) for lane in engine.lanes]
    return [mode for mode in found if mode is not None]


def placement(release: LoadedRelease) -> Placement:
    """Where a release's operators run."""
    placed = release.placed
    return Placement(
        operators=dict(placed.operators),
        wanted=list(placed.wanted),
        absent=list(placed.absent),
        fell_back=placed.fell_back,
    )


def _by_model(told: Iterable[tuple[str, str | None]]) -> str | None:
    """What is told of the only model, or of each by its name."""
    found = list(told)
    if len(found) == 1:
        return found[0][1]
    return "; ".join(f"{model}: {text}" for model, text in found if text) or None


def _answers(mode: FallbackMode | None) -> str:
    return "model" if mode is None else f"fallback by {mode.cause}"


def _reason(mode: FallbackMode | None) -> str | None:
    return mode.reason if mode else None


def _listed(operators: Mapping[str, int]) -> str:
    return ", ".join(f"{place}: {count}" for place, count in operators.items())


def _sums(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            found[name] = found.get(name, 0) + count
    return found
