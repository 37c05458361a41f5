"""``serinus tokens``."""

import time
from typing import Annotated

import typer
from rich.text import Text

from fleet_client.commands.context import of
from fleet_client.commands.options import seconds_of
from fleet_client.views import tokens as views

app = typer.Typer(help="Say who may call the server, as what, until when.", no_args_is_help=True)


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Whom it is for, as the log shows it.")],
    role: Annotated[str, typer.Option(help="viewer, ci, operator or approver.")] = "viewer",
    lasting: Annotated[str, typer.Option("--for", help="Such as 12h, 90d; else for ever.")] = "",
    model: Annotated[
        list[str] | None,
        typer.Option(help="What it may change something of, as often as needed; else all."),
    ] = None,
) -> None:
    """Make a token and print its secret, which is shown this once."""
    expires = round((time.time() + seconds_of(lasting)) * 1000) if lasting else None
    secret = of(context).client.create_token(name, role, expires, model or [])
    of(context).show({"secret": secret}, Text(secret))


@app.command("list")
def list_tokens(context: typer.Context) -> None:
    """List the tokens, without their secrets."""
    rows = of(context).client.tokens()
    of(context).show(rows, views.tokens(rows))


@app.command()
def revoke(
    context: typer.Context,
    token: Annotated[str, typer.Argument(help="As the list names it.")],
) -> None:
    """End a token and the sessions that began with it, at once."""
    of(context).client.revoke_token(token)
    of(context).show({"revoked": token}, Text(f"{token} is revoked"))
