"""``serinus rollout`` and ``serinus verdict``."""

from pathlib import Path
from typing import Annotated

import typer

from fleet_client.commands.context import UNUSABLE, of
from fleet_client.commands.following import follow, newest
from fleet_client.commands.options import Reason
from fleet_client.commands.plan_file import read_plan
from fleet_client.views import rollouts as views

rollout_app = typer.Typer(help="Start, follow and stop rollouts.", no_args_is_help=True)
verdict_app = typer.Typer(help="Look at stored verdicts.", no_args_is_help=True)
Which = Annotated[str, typer.Argument(help="Rollout; the newest where left out.")]


@rollout_app.command("list")
def list_rollouts(context: typer.Context) -> None:
    """List the rollouts, newest first."""
    rows = of(context).client.rollouts()
    of(context).show(rows, views.rollouts(rows))


@rollout_app.command()
def start(
    context: typer.Context,
    release: Annotated[str, typer.Argument(help="MODEL@VERSION, an approved release.")],
    plan: Annotated[
        Path | None, typer.Option(help="JSON file with what differs from the default plan.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
) -> None:
    """Start a rollout."""
    started = of(context).client.start_rollout(release, read_plan(plan))
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


@verdict_app.command("list")
def list_verdicts(context: typer.Context, rollout: Which = "") -> None:
    """List a rollout's stored verdicts."""
    client = of(context).client
    rows = client.verdicts(rollout or newest(client))
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
