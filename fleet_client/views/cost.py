"""What predictions cost, and who asks for them."""

from rich.table import Table

from fleet_client.views.words import Json, count, number, table_of


def cost(rows: list[Json]) -> Table:
    """One line for each release that devices have sent windows of."""
    table = table_of("release")
    for column in (
        "devices", "predictions", "from memory", "fallback", "CPU us each", "in shadow",
        "bytes/device-hour", "price per million",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row["release"],
            count(row["devices"]),
            count(row["predictions"]),
            count(row["cached"]),
            count(row["fallbacks"]),
            number(row["cpu_us_per_prediction"]),
            number(row["shadow_cpu_us_per_row"]),
            number(row["bytes_per_device_hour"]),
            _price(row),
        )
    return table


def spent(row: Json) -> str:
    """One line on what a release's answers cost, as far as it was measured."""
    told = (
        (number(row["cpu_us_per_prediction"]), "us of CPU a prediction"),
        (number(row["bytes_per_device_hour"]), "bytes a device-hour"),
        (_price(row), "a million predictions"),
    )
    return ", ".join(f"{amount} {of}" for amount, of in told if amount)


def _price(row: Json) -> str:
    amount = number(row["price_per_million"])
    return f"{amount} {row['currency']}".strip() if amount else ""
