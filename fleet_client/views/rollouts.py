"""Rollouts and verdicts."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleet_client.views.words import Json, table_of, when

STATE_STYLE = {
    "promoted": "green",
    "running": "cyan",
    "promoting": "cyan",
    "paused": "yellow",
    "inconclusive": "yellow",
    "needs_approval": "yellow",
    "aborted": "red",
    "superseded": "dim",
    "rolling_back": "red",
    "rolled_back": "red",
}


def rollouts(rows: list[Json]) -> Table:
    """One line for each rollout."""
    table = table_of("rollout", "release", "from", "state", "stage", "started", "why")
    for row in rows:
        table.add_row(
            row["rollout"],
            row["release"],
            row["incumbent"] or "",
            state(row["state"]),
            _stage(row),
            when(row["created_ms"]),
            row["reason"],
        )
    return table


def rollout(row: Json) -> RenderableType:
    """Show one rollout with its stages and newest figures."""
    head = Text.assemble((row["release"], "bold"), "  ", state(row["state"]), f"  {row['rollout']}")
    if row["incumbent"]:
        head.append(f"  replaces {row['incumbent']}", style="dim")
    stages = table_of("stage", "size", "started", "ended", "devices", "outcome")
    for entry in row["stages"]:
        stages.add_row(
            entry["kind"],
            entry["size"],
            when(entry["started_ms"]),
            when(entry["ended_ms"]),
            ", ".join(f"{n} {role}" for role, n in entry["devices"].items() if role != "none"),
            entry["outcome"] or "",
        )
    parts: list[RenderableType] = [head, stages]
    if row["reason"]:
        parts.append(Text(row["reason"]))
    if row["approvals"]:
        parts.append(_approvals(row["approvals"]))
    if row["latest"]:
        latest = row["latest"]
        parts.append(
            Text.assemble(("verdict: ", "bold"), latest["decision"], f", {latest['reason']}")
        )
        parts.append(figures(latest["evidence"]))
    return Group(*parts)


def _approvals(row: Json) -> Text:
    given = ", ".join(entry["person"] for entry in row["given"]) or "nobody yet"
    text = f"{row['before']} waits for {row['needed']} people; approved by {given}"
    return Text(f"{text}: serinus rollout approve", "yellow")


def devices(rows: list[Json]) -> Table:
    """One line for each device of a rollout."""
    table = table_of("device", "role", "site", "settled", "online", "update", "waits for")
    for row in rows:
        table.add_row(
            row["device"],
            row["role"],
            row["site"],
            "yes" if row["settled"] else "",
            "yes" if row["online"] else Text("no", style="red"),
            row["update"] or "",
            Text(row["waits_for"], style="yellow"),
        )
    return table


def forecast(row: Json) -> RenderableType:
    """What a plan would do."""
    head = Text.assemble((row["release"], "bold"), f"  would go to {row['devices']} devices")
    if row["incumbent"]:
        head.append(f"  and replace {row['incumbent']}", style="dim")
    table = table_of("stage", "size", "devices", "at least", "approvals", "by stratum")
    for stage in row["stages"]:
        table.add_row(
            stage["kind"],
            stage["size"],
            _roles(stage["devices"]),
            f"{stage['min_seconds']:g} s",
            str(stage["approvals"] or ""),
            "\n".join(f"{name}: {_roles(of)}" for name, of in stage["strata"].items()),
        )
    left = [Text(f"{count} left out: {why}", "dim") for why, count in row["left_out"].items()]
    warnings = [Text(text, "bold red") for text in row["warnings"]]
    shortest = Text(f"at least {row['shortest_seconds']:g} s in all")
    return Group(head, table, shortest, *left, *warnings)


def _roles(counts: Json) -> str:
    return ", ".join(f"{count} {role}" for role, count in counts.items() if role != "none")


def figures(rows: list[Json]) -> Table:
    """Show a verdict's figures: evidence that the candidate is worse, and that it is not."""
    table = table_of(
        "metric", "slice", "difference", "worse", "needed", "not worse", "rows", "devices"
    )
    for row in rows:
        worse = row["e_worse"] >= row["worse_at"]
        table.add_row(
            row["metric"],
            row["slice"] or "all",
            "" if row["estimate"] is None else f"{row['estimate']:+.3f}",
            Text(evidence(row["e_worse"]), style="bold red" if worse else ""),
            evidence(row["worse_at"]),
            evidence(row["e_not_worse"]),
            str(row["rows"]),
            str(row["devices"]),
        )
    return table


def state(value: str) -> Text:
    """A rollout's state in its colour."""
    return Text(value.replace("_", " "), style=STATE_STYLE.get(value, ""))


def evidence(value: float | None) -> str:
    """An e-value, short."""
    return "" if value is None else f"{value:.3g}"


def _stage(row: Json) -> str:
    stages = row["stages"]
    return f"{stages[-1]['kind']} ({len(stages)} of {len(row['planned_stages'])})" if stages else ""


def verdicts(rows: list[Json]) -> Table:
    """One line for each stored verdict."""
    table = table_of("verdict", "at", "stage", "decision", "why")
    for row in rows:
        table.add_row(
            str(row["verdict"]),
            when(row["at_ms"]),
            row["stage_kind"],
            row["decision"],
            row["reason"],
        )
    return table


def replay(row: Json) -> RenderableType:
    """Say whether a verdict's inputs gave the same figures again."""
    same = Text("the same figures again", style="green")
    differs = Text("other figures than were stored", style="bold red")
    return Group(same if row["same"] else differs, figures(row["replayed"]["evidence"]))


def progress(row: Json) -> str:
    """One line on where a rollout is, for logs."""
    latest = row["latest"] or {"decision": "hold", "reason": "no verdict yet"}
    return (
        f"{row['release']}  {row['state']}  {_stage(row)}  {latest['decision']}: {latest['reason']}"
    )
