"""``serinus drift``."""

from typing import Annotated

import typer

from edge_core.errors import InvalidConfiguration
from fleet_client.commands.context import of
from fleet_client.commands.options import Reason
from fleet_client.views import drift as views

app = typer.Typer(help="Open drifts, and what to do about them.", no_args_is_help=True)

Model = Annotated[str, typer.Argument(help="Name of the model.")]


@app.command("list")
def list_drifts(context: typer.Context) -> None:
    """List drifts that have not ended."""
    rows = of(context).client.drifts()
    of(context).show(rows, views.drifts(rows))


@app.command()
def show(context: typer.Context, model: Model) -> None:
    """Show a model's drift: figures, slices, since when, and what was done."""
    for row in of(context).client.drifts():
        if row["alert"]["subject"] == model:
            of(context).show(row, views.drift(row))
            return
    raise InvalidConfiguration(f"{model} does not drift now; see: serinus drift list")


@app.command()
def respond(
    context: typer.Context,
    model: Model,
    action: Annotated[
        str | None,
        typer.Argument(
            help="retrain, rethink, fix-source, fallback or usual; what is suggested, if left out."
        ),
    ] = None,
    reason: Reason = "",
    for_hours: Annotated[
        float | None,
        typer.Option(help="End a fallback by itself; else it ends with the drift."),
    ] = None,
) -> None:
    """Do something about a drift in one call."""
    seconds = None if for_hours is None else for_hours * 3600
    row = of(context).client.respond_to_drift(model, action, reason, for_seconds=seconds)
    of(context).show(row, views.drift(row))


@app.command()
def policies(context: typer.Context) -> None:
    """List models whose devices fall back by themselves."""
    rows = of(context).client.drift_policies()
    of(context).show(rows, views.policies(rows))


@app.command()
def policy(
    context: typer.Context,
    model: Model,
    fallback: Annotated[
        list[str] | None,
        typer.Option(help="Kind of drift: data, prediction, concept, upstream or seasonal."),
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Remove the policy.")] = False,
) -> None:
    """Let a model's devices fall back as soon as a drift of some kinds opens."""
    client = of(context).client
    if drop:
        client.drop_drift_policy(model)
    else:
        client.set_drift_policy(model, fallback or [])
    rows = client.drift_policies()
    of(context).show(rows, views.policies(rows))
