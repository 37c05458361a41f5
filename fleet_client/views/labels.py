"""Labels, slices, holdouts and appeals."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleet_client.views import history
from fleet_client.views.words import Json, count, share, table_of, when

BECAME = ("joined", "corrected", "taken_back", "unchanged", "waiting")
BAR = 30
"""Width of the longest bar."""
HOUR, DAY = 3600, 86_400


def taken(row: Json, most: int) -> RenderableType:
    """What became of labels that were told."""
    table = table_of(*(name.replace("_", " ") for name in (*BECAME, "refused")))
    refused = row["refused"]
    table.add_row(*(str(row[name]) for name in BECAME), str(len(refused)))
    told = [Text(f"{each['prediction_id']}: {each['reason']}", "red") for each in refused[:most]]
    if len(refused) > most:
        told.append(Text(f"and {len(refused) - most} more", "red"))
    return Group(table, *told)


def status(row: Json) -> RenderableType:
    """How many labels came, and a plot of how late."""
    rows, labelled = row["rows"], row["labelled_on_devices"]
    part = f" ({labelled / rows:.1%})" if rows else ""
    became = ", ".join(f"{n} {what.replace('_', ' ')}" for what, n in sorted(row["told"].items()))
    lines = [
        Text.assemble((row["model"], "bold")),
        Text(f"labelled on devices  {labelled} of {rows} answers{part}"),
        Text(f"told to the server   {became or 'none'}"),
        Text(f"waiting              {row['waiting']} labels whose answer is not known here"),
        Text(f"given up             {row['never_joined']} that waited too long"),
    ]
    if row["estimated"]:
        told = history.estimated(row["estimated"])
        lines.append(Text(f"accuracy, estimated  {told} by confidence, over two days"))
    delays = row["delays"]
    if delays["bins"]:
        lines.append(
            Text(
                f"delay                half within {span(delays['median_seconds'])}, "
                f"95 % within {span(delays['p95_seconds'])}"
            )
        )
        lines += _bars(delays["bins"])
    return Group(*lines)


def _bars(bins: Json) -> list[Text]:
    largest = max(bins.values())
    return [
        Text(f"  within {span(float(edge[1:])):>8}  {'█' * round(BAR * n / largest):<{BAR}} {n}")
        for edge, n in bins.items()
    ]


def span(seconds: float) -> str:
    """A time in its largest whole unit."""
    for size, unit in ((DAY, "d"), (HOUR, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:g} s"


def prediction(row: Json) -> RenderableType:
    """One answer with its labels."""
    about = row["prediction"]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    slices = ", ".join(f"{name}={value}" for name, value in sorted(about["slices"].items()))
    for name, value in (
        ("prediction", about["prediction"]),
        ("answer", f"{about['predicted']} (confidence {about['confidence']:.3f})"),
        ("at", when(about["at_ms"])),
        ("release", row["release"] or f"unknown {about['digest'][:12]}"),
        ("device", f"{about['device']}, arm {about['arm']}, {about['policy']}"),
        ("slices", slices or "none"),
        ("known from", about["told_by"] or "its device's sample"),
    ):
        table.add_row(name, value)
    told = table_of("label", "known", "told", "by", "")
    for label in row["labels"]:
        state = "" if label["latest"] else "replaced"
        told.add_row(
            label["label"] or "(taken back)",
            when(label["known_ms"]),
            when(label["received_ms"]),
            label["told_by"],
            state,
        )
    return Group(table, told) if row["labels"] else table


def fairness(rows: list[Json]) -> RenderableType:
    """One table for each release: accuracy by slice beside the rest."""
    if not rows:
        return Text("nothing is in production yet: serinus rollout start MODEL@VERSION")
    return Group(*(part for row in rows for part in _fair(row)))


def _fair(row: Json) -> list[RenderableType]:
    noisy = "; counts carry noise for privacy" if row["noisy"] else ""
    head = Text.assemble(
        (row["release"], "bold"),
        f"  {share(row['accuracy']) or 'no label yet'} on {row['labelled']} labelled rows{noisy}",
    )
    table = table_of("slice", "accuracy", "95 % interval", "the others", "difference")
    for name in ("rows", "evidence", "needed", "appeals", "upheld"):
        table.add_column(name, justify="right")
    for part in row["slices"]:
        figure = part["figure"]
        style = "bold red" if hurt(figure) else "" if figure["enough"] else "dim"
        table.add_row(
            figure["slice"],
            share(figure["accuracy"]),
            _interval(figure),
            share(figure["rest"]),
            "" if figure["disparity"] is None else f"{figure['disparity']:+.3f}",
            count(figure["rows"]),
            f"{figure['e_worse']:.3g}" if figure["enough"] else "too few rows",
            f"{figure['worse_at']:.3g}",
            count(part["appeals"]),
            count(part["upheld"]),
            style=style,
        )
    return [head, table, Text()]


def hurt(figure: Json) -> bool:
    """Whether a slice is worse than the others beyond doubt."""
    return bool(figure["enough"] and figure["e_worse"] >= figure["worse_at"])


def _interval(figure: Json) -> str:
    if figure["low"] is None:
        return ""
    return f"{figure['low']:.3f} to {figure['high']:.3f}"


def holdout(row: Json) -> RenderableType:
    """Rates inside and outside of a holdout."""
    inside, outside = row["holdout"], row["others"]
    head = Text.assemble(
        (row["model"], "bold"),
        f"  {inside['devices']} devices held out, {outside['devices']} others",
    )
    if not inside["devices"]:
        hint = "no device is held out: start a rollout whose plan has a holdout share"
        return Group(head, Text(hint))
    table = table_of("rate", "held out", "others", "difference", "95 % interval", "")
    for part in row["differences"]:
        differs = part["enough"] and part["low"] is not None and part["low"] * part["high"] > 0
        said = "differs" if differs else "" if part["enough"] else "too few rows"
        table.add_row(
            part["what"],
            share(part["holdout"]),
            share(part["others"]),
            "" if part["difference"] is None else f"{part['difference']:+.3f}",
            _interval(part),
            said,
            style="bold red" if differs else "",
        )
    return Group(head, table)


def appeals(rows: list[Json]) -> Table:
    """One line for each appeal."""
    table = table_of(
        "appeal", "state", "prediction", "release", "answer", "claimed", "opened", "why"
    )
    for row in rows:
        about = row["about"]
        table.add_row(
            str(row["appeal"]),
            Text(row["state"], style="yellow" if row["state"] == "open" else ""),
            about["prediction"]["prediction"],
            about["release"] or "",
            about["prediction"]["predicted"],
            row["claimed"] or "",
            when(row["opened_ms"]),
            row["reason"],
        )
    return table


def appeal(row: Json) -> RenderableType:
    """One appeal with what it is about."""
    head = Text.assemble(
        (f"appeal {row['appeal']}", "bold"), f"  {row['state']}, opened by {row['opened_by']}, "
        f"{when(row['opened_ms'])}: {row['reason']}",
    )  # fmt: skip
    parts: list[RenderableType] = [head, prediction(row["about"])]
    if row["explanation"]:
        parts.append(_explanation(row["explanation"]))
    elif row["state"] == "open":
        kept = row["about"]["has_sample"]
        parts.append(Text("not explained yet" if kept else "its inputs were not kept"))
    if row["decided_ms"]:
        right = f", right is {row['label']}" if row["label"] else ""
        told = f"{row['state']} by {row['decided_by']}, {when(row['decided_ms'])}{right}"
        parts.append(Text(f"{told}: {row['decision']}"))
    return Group(*parts)


def _explanation(found: Json) -> RenderableType:
    table = table_of("input", "weight")
    ranked = sorted(found["contributions"].items(), key=lambda each: -abs(each[1]))
    for name, value in ranked[:BAR]:
        table.add_row(name, f"{value:+.4f}")
    note = [Text(found["note"])] if found["note"] else []
    return Group(Text(f"explained by {found['method']}"), table, *note)
