"""Tokens."""

from rich.table import Table

from fleet_client.views.words import Json, table_of, when


def tokens(rows: list[Json]) -> Table:
    """One line for each token."""
    table = table_of("token", "name", "role", "models", "made", "expires")
    for row in rows:
        made, expires = when(row["created_ms"]), when(row["expires_ms"])
        table.add_row(
            row["token"], row["name"], row["role"], ", ".join(row["models"]) or "all", made, expires
        )
    return table
