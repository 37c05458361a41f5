"""``serinus rollout`` and ``serinus verdict``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fleet_client.commands.context import UNUSABLE, of
from fleet_client.commands.following import follow, newest
from fleet_client.commands.options import Most, Reason
from fleet_client.commands.plan_file import as_toml, read_plan
from fleet_client.views import rollouts as views

rollout_app = typer.Typer(help="Start, follow and stop rollouts.", no_args_is_help=True)
verdict_app = typer.Typer(help="Look at stored verdicts.", no_args_is_help=True)
Which = Annotated[str, typer.Argument(help="Rollout; the newest where left out.")]


@rollout_app.command("list")
def list_rollouts(context: typer.Context, limit: Most = 200) -> None:
    """List the rollouts, newest first."""
    rows = of(context).client.rollouts(limit)
    of(context).show(rows, views.rollouts(rows))


@rollout_app.command()
def start(
    context: typer.Context,
    release: Annotated[str, typer.Argument(help="MODEL@VERSION, an approved release.")],
    plan: Annotated[
        Path | None, typer.Option(help="TOML or JSON file with what differs from the default plan.")
    ] = None,
    supersede: Annotated[
        bool, typer.Option("--supersede", help="Take over from one that has not ended.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
) -> None:
    """Start a rollout."""
    started = of(context).client.start_rollout(release, read_plan(plan), supersede=supersede)
    if watch:
        follow(of(context), started["rollout"])
    else:
        of(context).show(started, views.rollout(started))


@rollout_app.command()
def status(
    context: typer.Context,
    rollout: Annotated[str, typer.Argument(help="Rollout; the newest where left out.")] = "",
) -> None:
    """Show a rollout with its stages and newest figures."""
    row = of(context).client.rollout(rollout or newest(of(context).client))
    of(context).show(row, views.rollout(row))


@rollout_app.command()
def watch(
    context: typer.Context,
    rollout: Annotated[str, typer.Argument(help="Rollout; the newest where left out.")] = "",
) -> None:
    """Follow a rollout to its end.

    Exit code 0 when promoted, 3 when rolled back, 2 when it was inconclusive and waits for you.
    """
    follow(of(context), rollout or newest(of(context).client))


@rollout_app.command()
def pause(context: typer.Context, rollout: Which = "", reason: Reason = "") -> None:
    """Hold a rollout where it is."""
    client = of(context).client
    row = client.pause(rollout or newest(client), reason)
    of(context).show(row, views.rollout(row))


@rollout_app.command()
def resume(context: typer.Context, rollout: Which = "", reason: Reason = "") -> None:
    """Go on with a paused rollout."""
    client = of(context).client
    row = client.resume(rollout or newest(client), reason)
    of(context).show(row, views.rollout(row))


@rollout_app.command()
def rollback(context: typer.Context, rollout: Which = "", reason: Reason = "") -> None:
    """Put every device of a rollout back on the release it had before."""
    client = of(context).client
    row = client.roll_back(rollout or newest(client), reason)
    of(context).show(row, views.rollout(row))


@rollout_app.command()
def abort(context: typer.Context, rollout: Which = "", reason: Reason = "") -> None:
    """End a rollout where it is: devices that run the candidate keep it, no other follows."""
    client = of(context).client
    row = client.abort(rollout or newest(client), reason)
    of(context).show(row, views.rollout(row))


@rollout_app.command()
def approve(context: typer.Context, rollout: Which = "", note: Reason = "") -> None:
    """Approve what follows the present stage; whoever started the rollout may not."""
    client = of(context).client
    row = client.approve(rollout or newest(client), note)
    of(context).show(row, views.rollout(row))


@rollout_app.command()
def release_holdout(context: typer.Context, rollout: Which = "") -> None:
    """Let the held-out devices of a promoted rollout follow it."""
    client = of(context).client
    row = client.release_holdout(rollout or newest(client))
    of(context).show(row, views.rollout(row))


@rollout_app.command("devices")
def list_devices(
    context: typer.Context,
    rollout: Which = "",
    waiting: Annotated[bool, typer.Option("--waiting", help="Only those that wait.")] = False,
) -> None:
    """List a rollout's devices: what each should do, does, and waits for."""
    client = of(context).client
    name = rollout or newest(client)
    rows = list(client.rollout_devices(name))
    shown = [row for row in rows if row["waits_for"]] if waiting else rows
    of(context).show(shown, views.devices(shown))


@rollout_app.command()
def plan(context: typer.Context) -> None:
    """Print the default plan as TOML, with a word on each setting."""
    row = of(context).client.default_plan()
    of(context).show(row, Text(as_toml(row)))


@rollout_app.command()
def check(
    context: typer.Context,
    release: Annotated[str, typer.Argument(help="MODEL@VERSION, an approved release.")],
    plan: Annotated[
        Path | None, typer.Option(help="TOML or JSON file with what differs from the default plan.")
    ] = None,
) -> None:
    """Say what a plan would do on the present fleet; nothing is started."""
    row = of(context).client.check_plan(release, read_plan(plan))
    of(context).show(row, views.forecast(row))


@verdict_app.command("list")
def list_verdicts(context: typer.Context, rollout: Which = "", limit: Most = 200) -> None:
    """List a rollout's newest stored verdicts."""
    client = of(context).client
    rows = client.verdicts(rollout or newest(client), limit)
    of(context).show(rows, views.verdicts(rows))


@verdict_app.command()
def replay(
    context: typer.Context, verdict: Annotated[int, typer.Argument(help="Number of the verdict.")]
) -> None:
    """Judge a stored verdict's inputs again and compare: exit code 2 where they differ."""
    row = of(context).client.replay(verdict)
    of(context).show(row, views.replay(row))
    if not row["same"]:
        raise typer.Exit(UNUSABLE)
