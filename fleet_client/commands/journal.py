"""``serinus alerts`` and ``serinus audit``."""

from typing import Annotated

import typer

from fleet_client.client import Json
from fleet_client.commands.context import UNUSABLE, of
from fleet_client.commands.options import Most
from fleet_client.views import journal as views

app = typer.Typer()
audit_app = typer.Typer(help="Who decided what, in a chain of hashes.", no_args_is_help=True)


@app.command()
def alerts(context: typer.Context, limit: Most = 200) -> None:
    """List the alerts, open ones first."""
    rows = of(context).client.alerts(limit)
    of(context).show(rows, views.alerts(rows))


@app.command()
def events(
    context: typer.Context,
    after: Annotated[int, typer.Option(help="Only with a larger number.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", help="Tell new ones as they come.")] = False,
) -> None:
    """List what happened, oldest first; --follow goes on."""
    client = of(context).client
    rows = client.events(after, limit=1000)
    of(context).show(rows, views.events(rows))
    if follow:
        last = rows[-1]["event"] if rows else after
        for row in client.follow_events(last):
            of(context).show(row, views.event(row))


@app.command()
def rejected(context: typer.Context, limit: Most = 200) -> None:
    """List messages that the server did not take in, counted by reason."""
    rows = of(context).client.rejected(limit)
    of(context).show(rows, views.rejected(rows))


@audit_app.command("list")
def list_audit(
    context: typer.Context,
    subject: Annotated[str, typer.Option(help="Only of this rollout, device or model.")] = "",
    actor: Annotated[str, typer.Option(help="Only by this person.")] = "",
) -> None:
    """List who decided what, oldest first."""
    client = of(context).client
    rows: list[Json] = []
    while page := client.audit(rows[-1]["entry"] if rows else 0, subject=subject, actor=actor):
        rows += page
    of(context).show(rows, views.audit(rows))


@audit_app.command()
def verify(
    context: typer.Context,
    head: Annotated[
        str, typer.Option(help="NUMBER:HASH that was kept elsewhere, to see that nothing was cut.")
    ] = "",
) -> None:
    """Check the chain from its first entry to its last. Exit code 2 where it does not hold."""
    row = of(context).client.verify_audit(head)
    of(context).show(row, views.verified(row))
    if not row["holds"]:
        raise typer.Exit(UNUSABLE)
