"""``serinus retrain``."""

from typing import Annotated

import typer

from fleet_client.commands.context import of
from fleet_client.commands.options import Most, Reason
from fleet_client.views import retraining as views

app = typer.Typer(help="Train models again: requests and policies.", no_args_is_help=True)

Request = Annotated[int, typer.Argument(help="Number of the request.")]
Model = Annotated[str, typer.Argument(help="Name of the model.")]


@app.command("list")
def list_requests(context: typer.Context, limit: Most = 200) -> None:
    """List requests, newest first."""
    rows = of(context).client.retrain_requests(limit)
    of(context).show(rows, views.requests(rows))


@app.command()
def show(context: typer.Context, request: Request) -> None:
    """Show one request with the gates that refused it."""
    row = of(context).client.retrain_request(request)
    of(context).show(row, views.request(row))


@app.command()
def ask(
    context: typer.Context,
    model: Model,
    reason: Reason = "",
    roll_out: Annotated[
        bool, typer.Option("--roll-out", help="Start a rollout of what passes.")
    ] = False,
) -> None:
    """Ask that a model be trained again on new data; a worker builds it."""
    automation = "rollout" if roll_out else "build"
    row = of(context).client.retrain(model, reason, automation=automation)
    of(context).show(row, views.request(row))


@app.command()
def approve(context: typer.Context, request: Request) -> None:
    """Let a worker take a suggested request."""
    row = of(context).client.approve_retraining(request)
    of(context).show(row, views.request(row))


@app.command()
def cancel(context: typer.Context, request: Request, reason: Reason = "") -> None:
    """End a request that nobody needs any more."""
    row = of(context).client.cancel_retraining(request, reason)
    of(context).show(row, views.request(row))


@app.command()
def policies(context: typer.Context) -> None:
    """List when models ask for training by themselves."""
    rows = of(context).client.retrain_policies()
    of(context).show(rows, views.policies(rows))


@app.command()
def policy(
    context: typer.Context,
    model: Model,
    automation: Annotated[
        str, typer.Option(help="suggest, build, or rollout: what may follow without a person.")
    ] = "suggest",
    every_days: Annotated[float | None, typer.Option(help="Ask so often; else never.")] = None,
    on_drift: Annotated[bool, typer.Option(help="Ask when the model's world drifts.")] = True,
    cooldown_days: Annotated[float, typer.Option(help="Never ask sooner after the last time.")] = 1,
    drop: Annotated[bool, typer.Option("--drop", help="Remove the policy.")] = False,
) -> None:
    """Set when a model asks for training by itself."""
    client = of(context).client
    if drop:
        client.drop_retrain_policy(model)
    else:
        client.set_retrain_policy(
            model,
            every_days=every_days,
            on_drift=on_drift,
            cooldown_days=cooldown_days,
            automation=automation,
        )
    rows = client.retrain_policies()
    of(context).show(rows, views.policies(rows))
