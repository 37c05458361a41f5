"""Requests to train models again."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleet_client.views.words import Json, number, table_of, when

STYLE = {
    "suggested": "yellow",
    "open": "cyan",
    "taken": "cyan",
    "published": "green",
    "refused": "bold red",
    "failed": "bold red",
}


def requests(rows: list[Json]) -> Table:
    """One line for each request."""
    table = table_of(
        "request", "model", "state", "cause", "asked", "by", "release", "what came of it"
    )
    for row in rows:
        table.add_row(
            str(row["request"]),
            row["model"],
            Text(row["state"], STYLE.get(row["state"], "")),
            row["cause"],
            when(row["asked_ms"]),
            row["asked_by"],
            row["release"] or "",
            row["outcome"] or row["progress"] or row["reason"],
        )
    return table


def request(row: Json) -> RenderableType:
    """One request with the gates that did not pass."""
    head = Text.assemble(
        (f"request {row['request']}", "bold"), f"  {row['model']}  ",
        (row["state"], STYLE.get(row["state"], "")), f"  automation: {row['automation']}",
    )  # fmt: skip
    asked = f"asked {when(row['asked_ms'])} by {row['asked_by']} ({row['cause']}): {row['reason']}"
    parts: list[RenderableType] = [head, Text(asked)]
    if row["worker"]:
        parts.append(Text(f"worker {row['worker']}, attempt {row['attempts']}: {row['progress']}"))
    if row["finished_ms"]:
        parts.append(Text(f"ended {when(row['finished_ms'])}: {row['outcome']}"))
    if row["release"]:
        parts.append(Text(f"release {row['release']}, rollout {row['rollout'] or 'none'}"))
    if row["gates"]:
        parts.append(_gates(row["gates"]))
    return Group(*parts)


def _gates(rows: list[Json]) -> Table:
    table = table_of("gate", "slice", "target", "outcome", "value", "limit", "rows", "")
    for row in rows:
        table.add_row(
            row.get("gate", ""),
            row.get("slice") or "all",
            row.get("target") or "",
            Text(str(row.get("outcome", "")).replace("_", " "), "red"),
            number(row.get("value")),
            number(row.get("threshold")),
            str(row.get("rows") or ""),
            row.get("detail") or "",
        )
    return table


def policies(rows: list[Json]) -> RenderableType:
    """One line for each policy."""
    if not rows:
        return Text("no model asks by itself: serinus retrain policy MODEL --automation build")
    table = table_of("model", "automation", "every days", "on drift", "cooldown days", "set", "by")
    for row in rows:
        table.add_row(
            row["model"],
            row["automation"],
            number(row["every_days"]),
            "yes" if row["on_drift"] else "no",
            number(row["cooldown_days"]),
            when(row["set_ms"]),
            row["set_by"],
        )
    return table
