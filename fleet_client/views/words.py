"""What every view says alike: names, times, shares, numbers."""

from datetime import UTC, datetime
from typing import Any

from rich.table import Table

Json = dict[str, Any]

SHORT = 12
"""Digits of a digest that are shown."""
WHOLE = 100
"""From here on, no digits after the point."""


def name(release: Json | None) -> str:
    """``model@version``, or a digest that is not known here."""
    if release is None:
        return ""
    return release["name"] or f"unknown {release['digest'][:SHORT]}"


def share(value: float | None) -> str:
    """A share with three digits."""
    return "" if value is None else f"{value:.3f}"


def when(milliseconds: int | None) -> str:
    """UTC time to the second."""
    if milliseconds is None:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def table_of(*columns: str) -> Table:
    """An empty table with these columns."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def count(value: int) -> str:
    """A count; nothing where it is 0."""
    return f"{value:,}" if value else ""


def number(value: float | None) -> str:
    """Three digits, or all those before the point."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= WHOLE else f"{value:.3g}"
