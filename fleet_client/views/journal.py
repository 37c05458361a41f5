"""Alerts and decisions."""

from rich.table import Table
from rich.text import Text

from fleet_client.views.words import Json, table_of, when


def alerts(rows: list[Json]) -> Table:
    """One line for each alert, open ones first."""
    table = table_of("opened", "closed", "kind", "what")
    for row in rows:
        style = "" if row["closed_ms"] else "bold red"
        table.add_row(
            when(row["opened_ms"]), when(row["closed_ms"]), row["kind"], Text(row["title"], style)
        )
    return table


def audit(rows: list[Json]) -> Table:
    """One line for each decision."""
    table = table_of("entry", "at", "who", "role", "what", "of", "detail")
    for row in rows:
        detail = "" if row["detail"] == "{}" else row["detail"]
        table.add_row(
            str(row["entry"]),
            when(row["at_ms"]),
            row["actor"],
            row["role"],
            row["action"],
            row["subject"],
            detail,
        )
    return table


def verified(row: Json) -> Text:
    """Whether the chain holds."""
    if row["holds"]:
        return Text(f"{row['entries']} entries hold; keep this elsewhere: {row['head']}", "green")
    return Text(f"{row['problem']}; the last good one is {row['head']}", "bold red")


def events(rows: list[Json]) -> Table:
    """One line for each event."""
    table = table_of("event", "at", "kind", "of", "what")
    for row in rows:
        table.add_row(
            str(row["event"]), when(row["at_ms"]), row["kind"], row["subject"], row["text"]
        )
    return table


def event(row: Json) -> Text:
    """One event as it happens."""
    at = when(row["at_ms"])
    return Text(f"{row['event']}  {at}  {row['kind']}  {row['subject']}  {row['text']}")


def rejected(rows: list[Json]) -> Table:
    """One line for each device, kind and reason."""
    table = table_of("device", "kind", "reason", "count", "first", "last", "detail")
    for row in rows:
        table.add_row(
            row["device"],
            row["kind"],
            row["reason"],
            str(row["count"]),
            when(row["first_ms"]),
            when(row["last_ms"]),
            row["detail"],
        )
    return table
