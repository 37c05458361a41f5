"""``serinus webhook``."""

from typing import Annotated

import typer

from fleet_client.commands.context import of
from fleet_client.commands.options import Most
from fleet_client.views import webhooks as views

app = typer.Typer(help="Tell other systems of events.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the webhook.")]


@app.command("list")
def list_webhooks(context: typer.Context) -> None:
    """List who is told of events."""
    rows = of(context).client.webhooks()
    of(context).show(rows, views.webhooks(rows))


@app.command()
def create(
    context: typer.Context,
    name: Name,
    url: Annotated[str, typer.Argument(help="Where to post, https://...")],
    kind: Annotated[
        list[str] | None,
        typer.Option(help="Kind of event; 'page' for all that a person has to look at now."),
    ] = None,
) -> None:
    """Tell a receiver of events; prints the secret that verifies them, once."""
    row = of(context).client.create_webhook(name, url, kind or ["page"])
    of(context).show(row, f"secret: {row['secret']}\nIt is shown only now; see docs/operations.md")


@app.command()
def remove(context: typer.Context, name: Name) -> None:
    """Tell a receiver no more."""
    of(context).client.remove_webhook(name)


@app.command()
def test(context: typer.Context, name: Name) -> None:
    """Send a message that means nothing."""
    row = of(context).client.test_webhook(name)
    of(context).show(row, f"delivery {row['delivery']}; see: serinus webhook deliveries {name}")


@app.command()
def deliveries(context: typer.Context, name: Name, limit: Most = 50) -> None:
    """List messages, newest first."""
    rows = of(context).client.deliveries(name, limit)
    of(context).show(rows, views.deliveries(rows))


@app.command()
def redeliver(
    context: typer.Context, delivery: Annotated[int, typer.Argument(help="Its number.")]
) -> None:
    """Send a message once more, now."""
    row = of(context).client.redeliver(delivery)
    of(context).show(row, views.deliveries([row]))
