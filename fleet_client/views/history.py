"""A model's past as a table, with its course in one line for each release and arm."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from fleet_client.views.words import Json, count, share, table_of, when

STEPS = "▁▂▃▄▅▆▇█"
WIDTH = 96
"""Of the courses; what is older is in the table."""
NAMED = 2
"""A course of fewer points says nothing."""


def history(rows: list[Json]) -> RenderableType:
    """Courses of accuracy, or of rows where no label came; then one line for each time."""
    table = table_of(
        "since", "release", "arm", "rows", "errors", "labels", "accuracy", "estimated", "fallbacks"
    )
    for row in rows:
        table.add_row(
            when(row["start_ms"]),
            row["release"],
            row["arm"],
            count(row["rows"]),
            count(row["errors"]),
            count(row["right"] + row["wrong"]),
            share(row["accuracy"]),
            estimated(row["estimated"]),
            count(sum(row["fallbacks"].values())),
        )
    return Group(*_courses(rows), table)


def estimated(row: Json | None) -> str:
    """A share with the interval that labels leave open."""
    return f"{row['accuracy']:.3f} ({row['low']:.3f}-{row['high']:.3f})" if row else ""


def sparkline(values: Sequence[float]) -> str:
    """One character for each value, from the lowest to the highest."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(STEPS[round((value - low) / span * (len(STEPS) - 1))] for value in values)


def _courses(rows: list[Json]) -> list[Text]:
    found: dict[tuple[str, str], list[Json]] = {}
    for row in rows:
        found.setdefault((row["release"], row["arm"]), []).append(row)
    lines = []
    for (release, arm), points in found.items():
        known = [p["accuracy"] for p in points if p["accuracy"] is not None][-WIDTH:]
        what, values = ("accuracy", known) if known else ("rows", [p["rows"] for p in points])
        values = values[-WIDTH:]
        if len(values) >= NAMED:
            ends = f"{min(values):.3g} to {max(values):.3g}"
            lines.append(Text(f"{release} {arm}  {sparkline(values)}  {what} {ends}"))
    return lines
