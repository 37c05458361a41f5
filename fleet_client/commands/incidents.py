"""``serinus incident``."""

from typing import Annotated

import typer

from fleet_client.commands.context import of
from fleet_client.commands.options import Most
from fleet_client.views import incidents as views

app = typer.Typer(
    help="What went wrong, in timelines that collect themselves.", no_args_is_help=True
)

Number = Annotated[int, typer.Argument(help="Number of the incident.")]


@app.command("list")
def list_incidents(context: typer.Context, limit: Most = 200) -> None:
    """List incidents: those that are not resolved first."""
    rows = of(context).client.incidents(limit)
    of(context).show(rows, views.incidents(rows))


@app.command()
def show(context: typer.Context, incident: Number) -> None:
    """Show an incident with its timeline and what it did."""
    row = of(context).client.incident(incident)
    of(context).show(row, views.incident(row))


@app.command()
def note(
    context: typer.Context, incident: Number, text: Annotated[str, typer.Argument(help="The line.")]
) -> None:
    """Write a line into an incident's timeline."""
    row = of(context).client.note_incident(incident, text)
    of(context).show(row, views.incident(row))


@app.command()
def assign(
    context: typer.Context, incident: Number, owner: Annotated[str, typer.Argument(help="Who.")]
) -> None:
    """Say who looks after an incident."""
    row = of(context).client.assign_incident(incident, owner)
    of(context).show(row, views.incident(row))


@app.command()
def resolve(
    context: typer.Context,
    incident: Number,
    cause: Annotated[str, typer.Option(help="What it was.")],
) -> None:
    """End an incident with its cause."""
    row = of(context).client.resolve_incident(incident, cause)
    of(context).show(row, views.incident(row))


@app.command()
def export(context: typer.Context, incident: Number) -> None:
    """Print a post-mortem in Markdown: what is known, and questions for people."""
    print(of(context).client.postmortem(incident), end="")
