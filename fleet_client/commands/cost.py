"""``serinus cost``, ``price`` and ``budget``."""

from enum import StrEnum
from typing import Annotated

import typer

from fleet_client.commands.context import of
from fleet_client.commands.options import moment_of
from fleet_client.views import cost as views

app = typer.Typer()
price_app = typer.Typer(help="What seconds, bytes and labels cost.", no_args_is_help=True)
budget_app = typer.Typer(help="What models may cost.", no_args_is_help=True)

Model = Annotated[str, typer.Argument(help="Name of the model.")]


class Span(StrEnum):
    """What a budget is for."""

    DAY = "day"
    MONTH = "month"
    THOUSAND = "thousand"


SpanOf = Annotated[Span, typer.Argument(help="A calendar day or month, UTC, or 1,000 predictions.")]


@app.command()
def cost(
    context: typer.Context,
    days: Annotated[
        int | None, typer.Option(min=1, max=3660, help="Only so many days, today included.")
    ] = None,
) -> None:
    """Say what predictions cost by release and target: processor time, traffic, labels, money."""
    rows = of(context).client.cost(days)
    of(context).show(rows, views.cost(rows))


@price_app.command("list")
def list_prices(context: typer.Context) -> None:
    """List prices by the day from which they hold."""
    rows = of(context).client.prices()
    of(context).show(rows, views.prices(rows))


@price_app.command("set")
def set_prices(
    context: typer.Context,
    device_second: Annotated[
        float | None, typer.Option(min=0, help="Of a second of a device's processor.")
    ] = None,
    megabyte: Annotated[
        float | None, typer.Option(min=0, help="Of a million bytes of MQTT payload.")
    ] = None,
    label: Annotated[float | None, typer.Option(min=0, help="Of one label.")] = None,
    currency: Annotated[str, typer.Option(help="Such as EUR.")] = "",
    since: Annotated[
        str, typer.Option(help="First day, such as 2026-11-01; today where left out.")
    ] = "",
) -> None:
    """Set all prices from a day on; what is left out is not counted from then on."""
    row = of(context).client.set_prices(
        device_second=device_second,
        megabyte=megabyte,
        label=label,
        currency=currency,
        since_ms=moment_of(since) if since else None,
    )
    of(context).show(row, views.prices([row]))


@budget_app.command("list")
def list_budgets(context: typer.Context) -> None:
    """List budgets beside what was spent. Exit code 1 where one is exceeded."""
    rows = of(context).client.budgets()
    of(context).show(rows, views.budgets(rows))
    if any(row["exceeded"] for row in rows):
        raise typer.Exit(1)


@budget_app.command("set")
def set_budget(
    context: typer.Context,
    model: Model,
    span: SpanOf,
    amount: Annotated[float, typer.Argument(help="In the currency of the prices.")],
) -> None:
    """Open an alert when a model costs more."""
    row = of(context).client.set_budget(model, span, amount)
    of(context).show(row, views.budgets([row]))


@budget_app.command("drop")
def drop_budget(context: typer.Context, model: Model, span: SpanOf) -> None:
    """Let a model cost what it does."""
    of(context).client.drop_budget(model, span)
