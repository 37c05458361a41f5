"""Who is told of events."""

from rich.table import Table
from rich.text import Text

from fleet_client.views.words import Json, table_of, when


def webhooks(rows: list[Json]) -> Table:
    """One line for each receiver."""
    table = table_of("webhook", "address", "of", "since", "by", "state")
    for row in rows:
        state = Text("told", "green")
        if row["problem"]:
            state = Text(row["problem"], "yellow")
        if row["disabled_ms"]:
            state = Text(f"not told since {when(row['disabled_ms'])}: {row['problem']}", "bold red")
        kinds = ", ".join(row["kinds"])
        created = when(row["created_ms"])
        table.add_row(row["webhook"], row["url"], kinds, created, row["created_by"], state)
    return table


def deliveries(rows: list[Json]) -> Table:
    """One line for each message."""
    table = table_of("delivery", "event", "made", "state", "attempts", "next", "answer")
    for row in rows:
        table.add_row(
            str(row["delivery"]),
            str(row["event"] or "test"),
            when(row["created_ms"]),
            row["state"],
            str(row["attempts"]),
            when(row["due_ms"]) if row["state"] == "pending" else "",
            row["answer"],
        )
    return table
