"""``serinus alerts``."""

import typer

from fleet_client.commands.context import of
from fleet_client.views import journal as views

app = typer.Typer()


@app.command()
def alerts(context: typer.Context) -> None:
    """List the alerts, open ones first."""
    rows = of(context).client.alerts()
    of(context).show(rows, views.alerts(rows))
