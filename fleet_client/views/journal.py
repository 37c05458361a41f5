"""Alerts."""

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
