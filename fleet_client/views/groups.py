"""Groups of devices."""

from rich.console import Group, RenderableType
from rich.text import Text

from fleet_client.views.words import Json, table_of, when


def labelled(names: list[str]) -> RenderableType:
    """Which devices were changed."""
    return Group(Text(f"{len(names)} devices", "bold"), Text(" ".join(names)))


def groups(rows: list[Json]) -> RenderableType:
    """One line for each group."""
    if not rows:
        return Text("no group is saved: serinus group save NAME 'site=berlin side=left'")
    table = table_of("group", "query", "saved", "by")
    for row in rows:
        table.add_row(row["name"], row["query"], when(row["set_ms"]), row["set_by"])
    return table


def group(row: Json) -> RenderableType:
    """A group and who is in it."""
    return Group(groups([row]), Text(), labelled(row["devices"]))
