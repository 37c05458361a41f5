"""``serinus releases``, ``release`` and ``production``."""

from typing import Annotated

import typer

from fleet_client.commands.context import of
from fleet_client.commands.options import moment_of
from fleet_client.views import releases as views

app = typer.Typer()
release_app = typer.Typer(help="Where releases come from, how they differ.", no_args_is_help=True)

Release = Annotated[str, typer.Argument(help="As model@version.")]


@app.command()
def releases(context: typer.Context) -> None:
    """List the approved releases with their gates and waivers."""
    rows = of(context).client.releases()
    of(context).show(rows, views.releases(rows))


@app.command()
def production(
    context: typer.Context,
    at: Annotated[
        str, typer.Option(help="What was then: a time as ISO 8601, such as 2026-11-01T12:00Z.")
    ] = "",
    history: Annotated[bool, typer.Option("--history", help="All that ever was.")] = False,
) -> None:
    """Say which release runs where, since when, decided by what, built from what."""
    client = of(context).client
    if at or history:
        rows = client.production(moment_of(at)) if at else client.production_history()
        of(context).show(rows, views.past(rows))
        return
    rows = client.production()
    of(context).show(rows, views.production(rows))


@release_app.command()
def lineage(context: typer.Context, release: Release) -> None:
    """Show what a release was built from, its ancestors and its descendants."""
    row = of(context).client.lineage(release)
    of(context).show(row, views.lineage(row))


@release_app.command()
def diff(context: typer.Context, before: Release, after: Release) -> None:
    """Tell what the second release has otherwise than the first. Exit code 1 where anything is."""
    row = of(context).client.diff(before, after)
    of(context).show(row, views.diff(row))
    if row["differences"]:
        raise typer.Exit(1)
