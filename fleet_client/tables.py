"""How the operators' command shows answers; values in, rich renderables out."""

from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Json = dict[str, Any]

STATE_STYLE = {
    "promoted": "green",
    "running": "cyan",
    "promoting": "cyan",
    "paused": "yellow",
    "inconclusive": "yellow",
    "rolling_back": "red",
    "rolled_back": "red",
}
SHORT = 12
WHOLE = 100


def devices(rows: list[Json]) -> Table:
    """One line for each device."""
    table = _table("device", "online", "release", "shadow", "arm", "update", "target", "lost")
    for row in rows:
        desired = row["desired"] or {}
        settled = row["confirmed"] or row["desired"] is None
        state = Text(row["update"] or "", style="" if settled else "yellow")
        if row["reason"]:
            state.append(f"  {row['reason']}", style="red")
        table.add_row(
            row["device"],
            Text("yes", style="green") if row["online"] else Text("no", style="red"),
            name(row["active"]),
            name(row["shadow"]),
            desired.get("arm", ""),
            state,
            row["target"] or "",
            str(row["lost_windows"] or ""),
        )
    return table


def commands(rows: list[Json], now_ms: int) -> Table:
    """One line for each command."""
    table = _table("command", "device", "order", "model", "by", "until", "outcome", "reason")
    for row in rows:
        over = row["expires_ms"] <= now_ms
        open_ = "never answered" if over else "sent" if row["sent_ms"] else "waiting"
        outcome = Text(row["outcome"] or open_)
        if row["outcome"] != "done" and (row["outcome"] or over):
            outcome.stylize("red")
        if row["detail"]:
            outcome.append(f"  {row['detail']}")
        table.add_row(
            row["command"],
            row["device"],
            row["kind"].replace("_", " "),
            row["model"],
            row["issued_by"],
            when(row["until_ms"]),
            outcome,
            row["reason"],
        )
    return table


def releases(rows: list[Json]) -> Table:
    """One line for each release, with the gates that did not pass."""
    table = _table(
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
            table.add_row("cost", _spent(spent))
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


def cost(rows: list[Json]) -> Table:
    """One line for each release that devices have sent windows of."""
    table = _table("release")
    for column in (
        "devices", "predictions", "from memory", "fallback", "CPU us each", "in shadow",
        "bytes/device-hour", "price per million",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row["release"],
            _count(row["devices"]),
            _count(row["predictions"]),
            _count(row["cached"]),
            _count(row["fallbacks"]),
            _number(row["cpu_us_per_prediction"]),
            _number(row["shadow_cpu_us_per_row"]),
            _number(row["bytes_per_device_hour"]),
            _price(row),
        )
    return table


def consumers(rows: list[Json]) -> Table:
    """One line for each consumer of each model."""
    table = _table("model", "consumer")
    table.add_column("predictions", justify="right")
    for column in ("first heard", "last heard"):
        table.add_column(column)
    for row in rows:
        first, last = when(row["first_ms"]), when(row["last_ms"])
        table.add_row(row["model"], row["consumer"], _count(row["rows"]), first, last)
    return table


def _spent(row: Json) -> str:
    told = (
        (_number(row["cpu_us_per_prediction"]), "us of CPU a prediction"),
        (_number(row["bytes_per_device_hour"]), "bytes a device-hour"),
        (_price(row), "a million predictions"),
    )
    return ", ".join(f"{amount} {of}" for amount, of in told if amount)


def _price(row: Json) -> str:
    amount = _number(row["price_per_million"])
    return f"{amount} {row['currency']}".strip() if amount else ""


def _count(value: int) -> str:
    return f"{value:,}" if value else ""


def _number(value: float | None) -> str:
    """Three digits, or all those before the point."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= WHOLE else f"{value:.3g}"


def rollouts(rows: list[Json]) -> Table:
    """One line for each rollout."""
    table = _table("rollout", "release", "from", "state", "stage", "started", "why")
    for row in rows:
        table.add_row(
            row["rollout"],
            row["release"],
            row["incumbent"] or "",
            state(row["state"]),
            _stage(row),
            when(row["created_ms"]),
            row["reason"],
        )
    return table


def rollout(row: Json) -> RenderableType:
    """Show one rollout with its stages and newest figures."""
    head = Text.assemble((row["release"], "bold"), "  ", state(row["state"]), f"  {row['rollout']}")
    if row["incumbent"]:
        head.append(f"  replaces {row['incumbent']}", style="dim")
    stages = _table("stage", "share", "started", "ended", "devices", "outcome")
    for entry in row["stages"]:
        stages.add_row(
            entry["kind"],
            f"{entry['share']:.0%}",
            when(entry["started_ms"]),
            when(entry["ended_ms"]),
            ", ".join(f"{n} {role}" for role, n in entry["devices"].items() if role != "none"),
            entry["outcome"] or "",
        )
    parts: list[RenderableType] = [head, stages]
    if row["reason"]:
        parts.append(Text(row["reason"]))
    if row["latest"]:
        latest = row["latest"]
        parts.append(
            Text.assemble(("verdict: ", "bold"), latest["decision"], f", {latest['reason']}")
        )
        parts.append(figures(latest["evidence"]))
    return Group(*parts)


def figures(rows: list[Json]) -> Table:
    """Show a verdict's figures: evidence that the candidate is worse, and that it is not."""
    table = _table(
        "metric", "slice", "difference", "worse", "needed", "not worse", "rows", "devices"
    )
    for row in rows:
        worse = row["e_worse"] >= row["worse_at"]
        table.add_row(
            row["metric"],
            row["slice"] or "all",
            "" if row["estimate"] is None else f"{row['estimate']:+.3f}",
            Text(evidence(row["e_worse"]), style="bold red" if worse else ""),
            evidence(row["worse_at"]),
            evidence(row["e_not_worse"]),
            str(row["rows"]),
            str(row["devices"]),
        )
    return table


def alerts(rows: list[Json]) -> Table:
    """One line for each alert, open ones first."""
    table = _table("opened", "closed", "kind", "what")
    for row in rows:
        style = "" if row["closed_ms"] else "bold red"
        table.add_row(
            when(row["opened_ms"]), when(row["closed_ms"]), row["kind"], Text(row["title"], style)
        )
    return table


def name(release: Json | None) -> str:
    """``model@version``, or a digest that is not known here."""
    if release is None:
        return ""
    return release["name"] or f"unknown {release['digest'][:SHORT]}"


def state(value: str) -> Text:
    """A rollout's state in its colour."""
    return Text(value.replace("_", " "), style=STATE_STYLE.get(value, ""))


def share(value: float | None) -> str:
    """A share with three digits."""
    return "" if value is None else f"{value:.3f}"


def evidence(value: float | None) -> str:
    """An e-value, short."""
    return "" if value is None else f"{value:.3g}"


def when(milliseconds: int | None) -> str:
    """UTC time to the second."""
    if milliseconds is None:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _stage(row: Json) -> str:
    stages = row["stages"]
    return f"{stages[-1]['kind']} ({len(stages)} of {len(row['planned_stages'])})" if stages else ""


def _decided(row: Json) -> str:
    verdict = f", verdict {row['verdict']}" if row["verdict"] is not None else ""
    return f"rollout {row['rollout']}{verdict}" if row["rollout"] else ""


def _dataset(row: Json) -> str:
    return f"{row['role']}: {row['name']}, {row['rows']} rows ({row['sha256'][:SHORT]})"


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def verdicts(rows: list[Json]) -> Table:
    """One line for each stored verdict."""
    table = _table("verdict", "at", "stage", "decision", "why")
    for row in rows:
        table.add_row(
            str(row["verdict"]),
            when(row["at_ms"]),
            row["stage_kind"],
            row["decision"],
            row["reason"],
        )
    return table


def replay(row: Json) -> RenderableType:
    """Say whether a verdict's inputs gave the same figures again."""
    same = Text("the same figures again", style="green")
    differs = Text("other figures than were stored", style="bold red")
    return Group(same if row["same"] else differs, figures(row["replayed"]["evidence"]))


def progress(row: Json) -> str:
    """One line on where a rollout is, for logs."""
    latest = row["latest"] or {"decision": "hold", "reason": "no verdict yet"}
    return (
        f"{row['release']}  {row['state']}  {_stage(row)}  {latest['decision']}: {latest['reason']}"
    )
