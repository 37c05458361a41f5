"""Devices and commands."""

import json

from rich.table import Table
from rich.text import Text

from fleet_client.views.words import Json, name, table_of, when


def devices(rows: list[Json]) -> Table:
    """One line for each device."""
    table = table_of("device", "online", "release", "shadow", "arm", "update", "target", "lost")
    for row in rows:
        desired = row["desired"] or {}
        settled = row["confirmed"] or row["desired"] is None
        state = Text(row["update"] or "", style="" if settled else "yellow")
        if row["reason"]:
            state.append(f"  {row['reason']}", style="red")
        table.add_row(
            row["device"],
            Text("yes", style="green") if row["online"] else Text("no", style="red"),
            name(row["active"]),
            name(row["shadow"]),
            desired.get("arm", ""),
            state,
            row["target"] or "",
            str(row["lost_windows"] or ""),
        )
    return table


def commands(rows: list[Json], now_ms: int) -> Table:
    """One line for each command."""
    table = table_of("command", "device", "order", "model", "by", "until", "outcome", "reason")
    for row in rows:
        over = row["expires_ms"] <= now_ms
        open_ = "never answered" if over else "sent" if row["sent_ms"] else "waiting"
        outcome = Text(row["outcome"] or open_)
        if row["outcome"] != "done" and (row["outcome"] or over):
            outcome.stylize("red")
        if row["detail"]:
            outcome.append(f"  {row['detail']}")
        table.add_row(
            row["command"],
            row["device"],
            row["kind"].replace("_", " "),
            row["model"],
            row["issued_by"],
            when(row["until_ms"]),
            outcome,
            row["reason"],
        )
    return table


def facts(row: Json) -> Table:
    """Names and values, one a line; what is nested is JSON."""
    table = table_of("", "")
    for key, value in row.items():
        shown = json.dumps(value) if isinstance(value, dict | list) else str(value)
        table.add_row(key.replace("_", " "), when(value) if key.endswith("_ms") else shown)
    return table


def refusals(rows: list[Json]) -> Table:
    """One line for each device and release."""
    table = table_of("device", "release", "since", "reason")
    for row in rows:
        table.add_row(row["device"], row["name"], when(row["at_ms"]), row["reason"])
    return table
