"""``serinus alerts`` and ``serinus audit``."""

from typing import Annotated

import typer

from fleet_client.client import Json
from fleet_client.commands.context import UNUSABLE, of
from fleet_client.views import journal as views

app = typer.Typer()
audit_app = typer.Typer(help="Who decided what, in a chain of hashes.", no_args_is_help=True)


@app.command()
def alerts(context: typer.Context) -> None:
    """List the alerts, open ones first."""
    rows = of(context).client.alerts()
    of(context).show(rows, views.alerts(rows))


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
