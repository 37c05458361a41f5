"""Releases and production."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from fleet_client.views import cost
from fleet_client.views.words import SHORT, Json, share, table_of, when

MOST_SHOWN = 48


def releases(rows: list[Json]) -> Table:
    """One line for each release, with the gates that did not pass."""
    table = table_of(
        "release", "digest", "parent", "accuracy", "in fleet", "devices", "parity", "gates"
    )
    for row in rows:
        table.add_row(
            Text(row["name"], style="" if row["listed"] else "strike"),
            row["digest"][:SHORT],
            row["parent"] or "",
            share(row["metrics"].get("accuracy")),
            share(row["accuracy"]) + (" noisy" if row.get("noisy") and row["labelled"] else ""),
            str(row["devices"] or ""),
            parity(row["parity"]),
            gates(row["gates"], row["waivers"]),
        )
    return table


def parity(counts: Json) -> Text:
    """Samples that the server computed again, and the features that differed."""
    kept = counts.get("not_possible", 0)
    if not counts["compared"]:
        return Text(f"{kept} kept back" if kept else "")
    wrong = counts["mismatches"]
    text = Text(f"{wrong} of {counts['compared']} differ", style="red" if wrong else "green")
    for name, count in list(counts["features"].items())[:SHORT]:
        text.append(f"\n{name}: {count}", style="red")
    return text


def gates(rows: list[Json], waivers: list[Json]) -> Text:
    """Say what passed, and name what did not with the reason of its waiver."""
    passed = sum(row["outcome"] == "passed" for row in rows)
    text = Text(f"{passed} of {len(rows)} passed", style="green" if passed == len(rows) else "")
    for row in rows:
        if row["outcome"] != "passed":
            where = f" {row['slice']}" if row["slice"] else ""
            text.append(f"\n{row['gate']}{where}: {row['outcome'].replace('_', ' ')}", style="red")
    for waiver in waivers:
        where = f" {waiver['slice']}" if waiver["slice"] else ""
        text.append(f"\nwaived {waiver['gate']}{where}: {waiver['reason']}", style="yellow")
    return text


def production(rows: list[Json]) -> RenderableType:
    """Say what runs where, since when, decided by what and built from what."""
    if not rows:
        return Text("nothing is in production yet: serinus rollout start MODEL@VERSION")
    parts: list[RenderableType] = []
    for row in rows:
        built = row["built_from"]
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold")
        table.add_column()
        others = "".join(f", {n} on {other}" for other, n in row["others"].items())
        table.add_row(row["model"], Text(row["release"], style="bold green"))
        table.add_row("runs on", f"{row['devices']} devices{others}")
        table.add_row("since", when(row["since_ms"]))
        if spent := row.get("cost"):  # a server before it kept costs tells none
            table.add_row("cost", cost.spent(spent))
        table.add_row("decided by", _decided(row["decided_by"]))
        table.add_row("digest", row["digest"])
        table.add_row("parent", built["parent"] or "none")
        table.add_row("data", "\n".join(_dataset(dataset) for dataset in built["datasets"]))
        if kept := built.get("snapshot"):  # a server before manifests of version 2 tells none
            table.add_row("kept as", f"data snapshot {kept['id'][:SHORT]} of {kept['name']}")
        dirty = " with changes not committed" if built["code_dirty"] else ""
        table.add_row("code", f"{built['code_commit'] or 'unknown commit'}{dirty}")
        table.add_row("recipe", f"{built['recipe']} ({built['recipe_sha256'][:SHORT]})")
        table.add_row("gates", gates(built["gates"], built["waivers"]))
        parts += [table, Text()]
    return Group(*parts[:-1])


def _decided(row: Json) -> str:
    verdict = f", verdict {row['verdict']}" if row["verdict"] is not None else ""
    return f"rollout {row['rollout']}{verdict}" if row["rollout"] else ""


def _dataset(row: Json) -> str:
    return f"{row['role']}: {row['name']}, {row['rows']} rows ({row['sha256'][:SHORT]})"


def past(rows: list[Json]) -> Table:
    """One line for each release that was in production."""
    table = table_of(
        "model", "release", "since", "until", "decided by", "devices then", "built from"
    )
    for row in rows:
        ran = row["devices"] or {}
        by = row["decided_by"]
        started = f", started by {by['started_by']}" if by["started_by"] else ""
        table.add_row(
            row["model"],
            row["release"],
            when(row["since_ms"]),
            when(row["until_ms"]) or "now",
            f"{_decided(by)}{started}",
            ", ".join(f"{count} on {name}" for name, count in ran.items()),
            _made_of(row["built_from"]),
        )
    return table


def _made_of(built: Json | None) -> str:
    """What a release was built from, in one line; ``lineage`` tells the rest."""
    if built is None:
        return ""
    data = ", ".join(
        f"{d.get('name', '')} {d.get('sha256', '')[:SHORT]}" for d in built["datasets"]
    )
    return f"{data}; code {(built['code_commit'] or 'unknown')[:SHORT]}"


def lineage(row: Json) -> RenderableType:
    """A release, what it was built from, and its line as a tree."""
    release = row["release"]
    tree = Tree(Text(release["name"], "bold"))
    made = release["built_from"]
    for data in made["datasets"]:
        tree.add(f"data: {data.get('name', '')} {data.get('role', '')} {data.get('rows', '')} rows")
    dirty = " (with changes that were not committed)" if made["code_dirty"] else ""
    tree.add(f"code: {made['code_commit'] or 'unknown'}{dirty}, recipe {made['recipe']}")
    tree.add(f"gates: {len(made['gates'])}, waivers: {len(made['waivers'])}")
    place = tree
    for parent in row["ancestors"]:
        known = "" if parent["known"] else "  (never approved here)"
        place = place.add(f"from {parent['name']}  {when(parent['listed_ms'])}{known}")
    places = {release["name"]: tree}
    for child in row["descendants"]:
        under = places.get(child["parent"], tree)
        places[child["name"]] = under.add(Text(f"became {child['name']}", "green"))
    return tree


def diff(row: Json) -> RenderableType:
    """What differs, section by section."""
    same = {
        "features": row["same_features"],
        "output": row["same_output"],
        "data": row["same_data"],
    }
    head = Text(f"{row['before']} -> {row['after']}: ", "bold")
    head.append(", ".join(f"{'same' if yes else 'other'} {name}" for name, yes in same.items()))
    table = table_of("what", "before", "after")
    for entry in row["differences"]:
        table.add_row(entry["place"], _short(entry["before"]), _short(entry["after"]))
    return Group(head, table)


def _short(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 1] + "…"
