"""``serinus label``, ``fairness``, ``holdout``, ``prediction`` and ``appeal``."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from edge_core.errors import InvalidConfiguration
from fleet_client.client import FleetClient, Json
from fleet_client.commands import label_file
from fleet_client.commands.context import UNUSABLE, of
from fleet_client.commands.options import Most
from fleet_client.views import labels as views

AT_ONCE = 2000
MOST_REFUSALS = 20

app = typer.Typer()
label_app = typer.Typer(help="Tell the server what was true.", no_args_is_help=True)
appeal_app = typer.Typer(help="Contest single answers, and decide.", no_args_is_help=True)

Appeal = Annotated[int, typer.Argument(help="Number of the appeal.")]
Why = Annotated[str, typer.Option(help="Why; kept in the log.")]


@label_app.command()
def upload(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="CSV (prediction_id, label, known_at) or JSON lines.")
    ],
) -> None:
    """Tell many labels; the same file again changes nothing. Exit code 2 where some are refused."""
    client, totals, refused = of(context).client, dict.fromkeys(views.BECAME, 0), []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("labels", total=None)
        for batch in _batches(file):
            taken = client.tell_labels(batch)
            refused += taken.pop("refused")
            totals = {name: totals[name] + taken[name] for name in totals}
            progress.advance(task, len(batch))
    said: Json = {**totals, "refused": refused}
    of(context).show(said, views.taken(said, MOST_REFUSALS))
    if refused:
        raise typer.Exit(UNUSABLE)


def _batches(file: Path) -> Iterator[list[Json]]:
    told = label_file.read(file)
    while batch := list(itertools.islice(told, AT_ONCE)):
        yield batch


@label_app.command()
def status(
    context: typer.Context, model: Annotated[str, typer.Argument(help="Name of the model.")]
) -> None:
    """Say how many labels of a model came, and how late they come."""
    row = of(context).client.label_status(model)
    of(context).show(row, views.status(row))


@app.command()
def prediction(
    context: typer.Context, prediction: Annotated[str, typer.Argument(help="Its id.")]
) -> None:
    """Show one answer: its device, release, slices and labels."""
    row = of(context).client.prediction(prediction)
    of(context).show(row, views.prediction(row))


@app.command()
def fairness(
    context: typer.Context,
    release: Annotated[
        str, typer.Argument(help="MODEL@VERSION; what is in production where left out.")
    ] = "",
) -> None:
    """Show how releases fare on each declared slice. Exit code 2 where one is hurt."""
    client = of(context).client
    rows = [client.fairness(name) for name in ([release] if release else _in_production(client))]
    of(context).show(rows, views.fairness(rows))
    if any(views.hurt(part["figure"]) for row in rows for part in row["slices"]):
        raise typer.Exit(UNUSABLE)


@app.command()
def holdout(
    context: typer.Context, model: Annotated[str, typer.Argument(help="Name of the model.")]
) -> None:
    """Compare labels of held-out devices with all others': does the model make its own labels?"""
    row = of(context).client.holdout(model)
    of(context).show(row, views.holdout(row))


@appeal_app.command("list")
def list_appeals(
    context: typer.Context,
    state: Annotated[
        str, typer.Option(help="open, upheld, rejected or withdrawn; all where left out.")
    ] = "",
    limit: Most = 200,
) -> None:
    """List contested answers, newest first."""
    rows = of(context).client.appeals(state or None, limit)
    of(context).show(rows, views.appeals(rows))


@appeal_app.command("open")
def open_appeal(
    context: typer.Context,
    prediction: Annotated[str, typer.Argument(help="Id of the answer.")],
    reason: Annotated[str, typer.Option(help="What is wrong with it.")],
    label: Annotated[str, typer.Option(help="What the answer should have been.")] = "",
    contact: Annotated[str, typer.Option(help="Whom to tell.")] = "",
) -> None:
    """Contest one answer."""
    client = of(context).client
    row = client.open_appeal(prediction, reason, label=label or None, contact=contact)
    of(context).show(row, views.appeal(row))


@appeal_app.command("show")
def show_appeal(context: typer.Context, appeal: Appeal) -> None:
    """Show one appeal with the answer's release, labels and explanation."""
    row = of(context).client.appeal(appeal)
    of(context).show(row, views.appeal(row))


@appeal_app.command()
def sample(
    context: typer.Context,
    appeal: Appeal,
    file: Annotated[Path, typer.Argument(help="Where to write it (msgpack).")],
) -> None:
    """Fetch what a contested answer was computed from, as its device sent it."""
    file.write_bytes(of(context).client.appeal_sample(appeal))


@appeal_app.command()
def explain(
    context: typer.Context,
    appeal: Appeal,
    file: Annotated[Path, typer.Argument(help="JSON with method, contributions and a note.")],
) -> None:
    """Keep an explanation beside a contested answer."""
    try:
        told = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InvalidConfiguration(f"cannot read an explanation from {file}: {error}") from error
    row = of(context).client.explain_appeal(appeal, told)
    of(context).show(row, views.appeal(row))


@appeal_app.command()
def uphold(
    context: typer.Context,
    appeal: Appeal,
    reason: Why,
    label: Annotated[
        str, typer.Option(help="The right answer; what was claimed where left out.")
    ] = "",
) -> None:
    """Agree: the answer was wrong. Its label is corrected, and counts in its slices' figures."""
    row = of(context).client.decide_appeal(appeal, "upheld", reason, label=label or None)
    of(context).show(row, views.appeal(row))


@appeal_app.command()
def reject(context: typer.Context, appeal: Appeal, reason: Why) -> None:
    """Disagree: the answer stands."""
    row = of(context).client.decide_appeal(appeal, "rejected", reason)
    of(context).show(row, views.appeal(row))


@appeal_app.command()
def withdraw(context: typer.Context, appeal: Appeal, reason: Why = "withdrawn") -> None:
    """Take an appeal back."""
    row = of(context).client.decide_appeal(appeal, "withdrawn", reason)
    of(context).show(row, views.appeal(row))


def _in_production(client: FleetClient) -> list[str]:
    return [row["release"] for row in client.production()]
