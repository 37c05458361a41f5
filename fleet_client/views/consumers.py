"""Who uses a model's answers."""

from rich.table import Table
from rich.text import Text

from fleet_client.views.words import Json, count, table_of, when


def consumers(rows: list[Json]) -> Table:
    """One line for each consumer of each model."""
    table = table_of("model", "consumer")
    table.add_column("predictions", justify="right")
    for column in ("first heard", "last heard", "owner", "reads versions", "note"):
        table.add_column(column)
    for row in rows:
        owner = row["owner"] if row["declared"] else Text("not declared", "yellow")
        versions = ", ".join(f"{major}.x" for major in row["acknowledged"])
        table.add_row(
            row["model"],
            row["consumer"],
            count(row["rows"]),
            when(row["first_ms"]),
            when(row["last_ms"]),
            owner,
            versions,
            row["note"],
        )
    return table
