"""``serinus devices`` and ``serinus fallback``."""

import time
from typing import Annotated

import typer

from fleet_client.commands.context import of
from fleet_client.commands.options import Devices, Model, Most, Reason, seconds_of
from fleet_client.views import devices as views

app = typer.Typer()
fallback_app = typer.Typer(
    help="Let the simple baseline answer instead of the model, at once.", no_args_is_help=True
)


@app.command()
def devices(
    context: typer.Context,
    query: Annotated[
        str, typer.Argument(help="Group, or terms such as site=oslo online=true; all if left out.")
    ] = "",
) -> None:
    """List the devices and what they run."""
    rows = of(context).client.devices(query)
    of(context).show(rows, views.devices(rows))


@app.command()
def fleet(context: typer.Context) -> None:
    """Show the whole fleet in numbers."""
    row = of(context).client.fleet()
    of(context).show(row, views.facts(row))


@app.command()
def refusals(context: typer.Context, limit: Most = 200) -> None:
    """List releases that devices would not install, and why."""
    rows = of(context).client.refusals(limit)
    of(context).show(rows, views.refusals(rows))


@fallback_app.command("on")
def fallback_on(
    context: typer.Context,
    devices: Devices,
    reason: Reason = "",
    lasting: Annotated[
        str, typer.Option("--for", help="Such as 90s, 30m, 2h, 7d; until it is ordered off.")
    ] = "",
    model: Model = None,
) -> None:
    """Let the baseline answer on these devices from their next request on."""
    seconds = seconds_of(lasting) if lasting else None
    client = of(context).client
    rows = client.fallback_on(devices, reason=reason, for_seconds=seconds, model=model)
    of(context).show(rows, views.commands(rows, time.time_ns() // 1_000_000))


@fallback_app.command("off")
def fallback_off(
    context: typer.Context, devices: Devices, reason: Reason = "", model: Model = None
) -> None:
    """Let the model answer again on these devices."""
    rows = of(context).client.fallback_off(devices, reason=reason, model=model)
    of(context).show(rows, views.commands(rows, time.time_ns() // 1_000_000))


@fallback_app.command("log")
def fallback_log(
    context: typer.Context, device: Annotated[str, typer.Argument(help="Name of a device.")]
) -> None:
    """List the commands to a device and what became of them."""
    rows = of(context).client.commands(device)
    of(context).show(rows, views.commands(rows, time.time_ns() // 1_000_000))
