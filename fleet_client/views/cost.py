"""What predictions cost, at which prices, and what they may cost."""

from rich.table import Table
from rich.text import Text

from fleet_client.views.words import Json, count, number, table_of, when

DAY_MS = 86_400_000
SPANS = {"day": "today", "month": "this month", "thousand": "1,000 predictions"}


def cost(rows: list[Json]) -> Table:
    """One line for each release and target that devices have sent windows of."""
    table = table_of("release", "target")
    for column in (
        "predictions", "from memory", "fallback", "labelled", "CPU us each", "in shadow",
        "bytes/device-hour", "for devices", "traffic", "labels", "1,000 cost", "spent",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for row in rows:
        each, spent = row["per_thousand"] or {}, row["spent"] or {}
        table.add_row(
            row["release"],
            row["target"] or "?",
            count(row["predictions"]),
            count(row["cached"]),
            count(row["fallbacks"]),
            count(row["labels"]),
            number(row["cpu_us_per_prediction"]),
            number(row["shadow_cpu_us_per_row"]),
            number(row["bytes_per_device_hour"]),
            number(each.get("device")),
            number(each.get("traffic")),
            number(each.get("labels")),
            _money(each.get("total"), row["currency"]),
            _money(spent.get("total"), row["currency"]),
        )
    return table


def spent(row: Json) -> str:
    """One line on what a release's answers cost, as far as it was measured."""
    each = row["per_thousand"] or {}
    told = (
        (number(row["cpu_us_per_prediction"]), "us of CPU a prediction"),
        (number(row["bytes_per_device_hour"]), "bytes a device-hour"),
        (_money(each.get("total"), row["currency"]), "a thousand predictions"),
    )
    return ", ".join(f"{amount} {of}" for amount, of in told if amount)


def prices(rows: list[Json]) -> Table:
    """One line for each day on which prices changed."""
    table = table_of("from")
    for column in ("device second", "megabyte", "label"):
        table.add_column(column, justify="right")
    table.add_column("by")
    for row in rows:
        amounts = (_money(row[n], row["currency"]) for n in ("device_second", "megabyte", "label"))
        table.add_row(when(row["day"] * DAY_MS)[:10], *amounts, row["set_by"])
    return table


def budgets(rows: list[Json]) -> Table:
    """One line for each budget."""
    table = table_of("model", "for")
    for column in ("spent", "of", "expected"):
        table.add_column(column, justify="right")
    table.add_column("state")
    table.add_column("by")
    for row in rows:
        state = Text("exceeded", "bold red") if row["exceeded"] else Text("within", "green")
        if row["spent"] is None:
            state = Text("nothing to count: set prices, or wait for predictions", "yellow")
        table.add_row(
            row["model"],
            SPANS[row["span"]],
            number(row["spent"]),
            _money(row["amount"], row["currency"]),
            number(row["expected"]),
            state,
            row["set_by"],
        )
    return table


def _money(amount: float | None, currency: str) -> str:
    shown = number(amount)
    return f"{shown} {currency}".strip() if shown else ""
