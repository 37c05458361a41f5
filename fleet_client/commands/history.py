"""``serinus history``."""

import time
from typing import Annotated, Literal

import typer

from fleet_client.commands.context import of
from fleet_client.views import history as views

DAY_MS = 24 * 3_600_000

app = typer.Typer()


@app.command()
def history(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    release: Annotated[str | None, typer.Option(help="Only this release, model@1.2.3.")] = None,
    slice_: Annotated[
        str | None, typer.Option("--slice", help="Only this slice, name=value.")
    ] = None,
    days: Annotated[
        float | None, typer.Option(min=0.01, help="How far back; 2, or 90 with --by day.")
    ] = None,
    by: Annotated[Literal["hour", "day"], typer.Option(help="One line for each.")] = "hour",
) -> None:
    """Show how a model's releases fared, by hour or by day."""
    since = None if days is None else max(0, round(time.time() * 1000 - days * DAY_MS))
    rows = of(context).client.history(
        model, release=release, slice_=slice_, from_ms=since, resolution=by
    )
    of(context).show(rows, views.history(rows))
