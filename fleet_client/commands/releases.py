"""``serinus releases``, ``production``, ``cost`` and ``consumers``."""

import typer

from fleet_client.commands.context import of
from fleet_client.views import cost as cost_views
from fleet_client.views import releases as views

app = typer.Typer()


@app.command()
def releases(context: typer.Context) -> None:
    """List the approved releases with their gates and waivers."""
    rows = of(context).client.releases()
    of(context).show(rows, views.releases(rows))


@app.command()
def production(context: typer.Context) -> None:
    """Say which release runs where, since when, decided by what, built from what."""
    rows = of(context).client.production()
    of(context).show(rows, views.production(rows))


@app.command()
def cost(context: typer.Context) -> None:
    """Say what predictions of each release cost in processor time and traffic."""
    rows = of(context).client.cost()
    of(context).show(rows, cost_views.cost(rows))


@app.command()
def consumers(context: typer.Context) -> None:
    """List who asks which model, and how much."""
    rows = of(context).client.consumers()
    of(context).show(rows, cost_views.consumers(rows))
