"""Open drifts."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleet_client.views.words import Json, table_of, when

MOST_FIGURES = 20
SHARES = ("mixture", "repetition", "nulls", "range")


def drifts(rows: list[Json]) -> Table:
    """One line for each open drift."""
    table = table_of("model", "kind", "since", "where", "suggested", "done", "what")
    for row in rows:
        alert, detail = row["alert"], row["alert"]["detail"]
        table.add_row(
            alert["subject"],
            Text(str(detail.get("kind", "")), "yellow"),
            when(detail.get("since_ms")),
            ", ".join(detail.get("slices", [])) or "everywhere",
            row["suggested"],
            ", ".join(done["action"] for done in row["responses"]),
            alert["title"],
        )
    return table


def drift(row: Json) -> RenderableType:
    """One drift with its figures, and what was done about it."""
    alert, detail = row["alert"], row["alert"]["detail"]
    parts: list[RenderableType] = [
        Text.assemble((alert["subject"], "bold"), f"  {alert['title']}"),
        Text(
            f"since {when(detail.get('since_ms'))}, told {when(alert['opened_ms'])}; "
            f"suggested: {row['suggested']}"
        ),
        _figures(detail.get("figures", [])),
    ]
    arms = ", ".join(f"{arm} {away:+.1f}" for arm, away in detail.get("arms", {}).items())
    if arms:
        parts.append(Text(f"first figure by arm, in standard deviations: {arms}"))
    for done in row["responses"]:
        parts.append(Text(f"{when(done['at_ms'])} {done['by']}: {done['action']} {done['reason']}"))
    return Group(*parts)


def policies(rows: list[Json]) -> Table:
    """One line for each model's policy."""
    table = table_of("model", "falls back at", "set", "by")
    for row in rows:
        kinds = ", ".join(row["fallback"]) or "never"
        table.add_row(row["model"], kinds, when(row["set_ms"]), row["set_by"])
    return table


def _figures(rows: list[Json]) -> Table:
    table = table_of("channel", "kind", "where", "measure", "usual", "now", "sd away", "evidence")
    for row in rows[:MOST_FIGURES]:
        form = "{:.1%}" if row["measure"] in SHARES else "{:+.2f} sd"
        table.add_row(
            row["channel"],
            row["kind"],
            row["slice"] or "everywhere",
            row["measure"],
            form.format(row["usual"]),
            form.format(row["now"]),
            f"{row['deviations']:.1f}",
            f"{row['e']:.2g}",
        )
    return table
