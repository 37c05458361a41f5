"""Shows a rollout until it ends."""

import time

import typer
from rich.live import Live

from edge_core.errors import InvalidConfiguration, Unavailable
from fleet_client.client import FleetClient, Json
from fleet_client.commands.context import UNUSABLE, Context, harmless, out
from fleet_client.views import rollouts as views

ROLLED_BACK = 3
POLL_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
ENDED = {"promoted", "rolled_back", "inconclusive"}


def newest(client: FleetClient) -> str:
    """The rollout that was started last."""
    rows = client.rollouts()
    if not rows:
        raise InvalidConfiguration("there is no rollout yet: serinus rollout start MODEL@VERSION")
    newest: str = rows[0]["rollout"]
    return newest


def follow(context: Context, rollout: str) -> None:
    """Show a rollout until it ends; a server that is away for a while is waited for."""
    row = context.client.rollout(rollout)
    quiet = context.as_json or not out.is_terminal
    seen = ""
    with Live(console=out, auto_refresh=False, transient=True) as live:
        while row["state"] not in ENDED:
            if not quiet:
                live.update(harmless(views.rollout(row)), refresh=True)
            elif not context.as_json and (line := views.progress(row)) != seen:
                print(line, flush=True)
                seen = line
            time.sleep(POLL_SECONDS)
            row = _patiently(context.client, rollout)
    context.show(row, views.rollout(row))
    if row["state"] != "promoted":
        raise typer.Exit(ROLLED_BACK if row["state"] == "rolled_back" else UNUSABLE)


def _patiently(client: FleetClient, rollout: str) -> Json:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return client.rollout(rollout)
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_SECONDS)
