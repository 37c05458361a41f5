"""Enrolment tokens and certificates."""

from rich.table import Table

from fleet_client.views.words import Json, table_of, when


def tokens(rows: list[Json]) -> Table:
    """One line for each token."""
    table = table_of("token", "devices", "left", "state", "new key", "made", "by", "expires")
    for row in rows:
        table.add_row(
            row["token"],
            row["devices"],
            f"{row['uses_left']} of {row['uses']}",
            row["state"],
            "allowed" if row["reenrol"] else "",
            when(row["created_ms"]),
            row["created_by"],
            when(row["expires_ms"]),
        )
    return table


def certificates(rows: list[Json]) -> Table:
    """One line for each certificate."""
    table = table_of("serial", "device", "state", "made", "until", "hardware", "reason")
    for row in rows:
        table.add_row(
            row["serial"],
            row["device"],
            row["state"],
            when(row["issued_ms"]),
            when(row["not_after_ms"]),
            "yes" if row["hardware"] else "no",
            row["reason"],
        )
    return table
