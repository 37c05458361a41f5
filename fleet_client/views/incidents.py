"""Incidents."""

from rich.console import Group, RenderableType
from rich.text import Text

from fleet_client.views.labels import span
from fleet_client.views.words import Json, table_of, when

STYLE = {"open": "bold red", "mitigated": "yellow", "resolved": "green"}


def incidents(rows: list[Json]) -> RenderableType:
    """One line for each incident."""
    if not rows:
        return Text("there was no incident yet", "green")
    table = table_of("incident", "state", "kind", "model", "opened", "owner", "what")
    for row in rows:
        table.add_row(
            str(row["incident"]),
            Text(row["state"], STYLE.get(row["state"], "")),
            row["kind"],
            row["model"],
            when(row["opened_ms"]),
            row["owner"] or "",
            row["title"],
        )
    return table


def incident(row: Json) -> RenderableType:
    """One incident with its timeline."""
    about, impact = row["incident"], row["impact"]
    head = Text.assemble(
        (f"incident {about['incident']}", "bold"), "  ",
        (about["state"], STYLE.get(about["state"], "")), f"  {about['title']}",
    )  # fmt: skip
    table = table_of("when", "who", "what about", "what")
    for entry in row["timeline"]:
        table.add_row(when(entry["at_ms"]), entry["source"], entry["subject"], entry["text"])
    parts: list[RenderableType] = [head, *_impact(impact)]
    if about["cause"]:
        parts.append(Text(f"cause, by {about['resolved_by']}: {about['cause']}"))
    return Group(*parts, Text(), table)


def _impact(impact: Json) -> list[Text]:
    lines = [f"seen after {span(impact['seconds_to_detect'])}"]
    if impact["seconds_to_mitigate"] is not None:
        lines.append(f"over {span(impact['seconds_to_mitigate'])} later")
    if impact["devices"] is not None:
        lines.append(f"{impact['rows']} rows on {impact['devices']} devices")
    hurt = [f"{one['slice']} {one['difference']:+.1%}" for one in impact["hurt"]]
    told = [Text(", ".join(lines))]
    if hurt:
        told.append(Text(f"hurt: {', '.join(hurt)}", "red"))
    return told
