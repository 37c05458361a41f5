"""How serving stands now, for status and reported state: who answers, why, and where it runs."""

from edge_agent.serving.engine import Engine
from edge_agent.serving.release import LoadedRelease
from edge_core.messages.telemetry import FallbackMode, Placement

Plain = str | int | float | bool | None


def described(engine: Engine) -> dict[str, Plain]:
    """Flat values for a person."""
    active, policy = engine.active, engine.policy
    mode = policy.mode(active)
    placed = placement(active) if active else None
    return {
        "answers": _answers(active, mode),
        "fallback_reason": mode.reason if mode else None,
        "fallback_until_ms": mode.until_ms if mode else None,
        **{f"fallback_{cause}": rows for cause, rows in policy.rows.items()},
        "missing_inputs": policy.missing,
        "shadow_dropped": engine.shadow_dropped,
        "placement": _listed(placed.operators) if placed else None,
        "fell_back_operators": placed.fell_back if placed else None,
        "absent_providers": ", ".join(placed.absent) if placed else None,
        **engine.remembering.counts,
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


def _answers(active: LoadedRelease | None, mode: FallbackMode | None) -> str | None:
    if active is None:
        return None
    return "model" if mode is None else f"fallback by {mode.cause}"


def _listed(operators: dict[str, int]) -> str:
    return ", ".join(f"{place}: {count}" for place, count in operators.items())
