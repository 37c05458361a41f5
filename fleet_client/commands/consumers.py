"""``serinus consumers`` and ``serinus consumer``."""

from typing import Annotated

import typer

from fleet_client.commands.context import of
from fleet_client.views import consumers as views

app = typer.Typer()
consumer_app = typer.Typer(help="Say who uses a model's answers.", no_args_is_help=True)

Model = Annotated[str, typer.Argument(help="Name of the model.")]
Name = Annotated[str, typer.Argument(help="Name of the consumer, as 'serinus consumers' has it.")]
Note = Annotated[str, typer.Option(help="Kept beside it.")]


@app.command()
def consumers(context: typer.Context) -> None:
    """List who uses which model: who is declared, and who was seen to ask."""
    rows = of(context).client.consumers()
    of(context).show(rows, views.consumers(rows))


@consumer_app.command()
def declare(
    context: typer.Context,
    model: Model,
    name: Name,
    owner: Annotated[str, typer.Option(help="Who answers for it.")],
    note: Note = "",
) -> None:
    """Say that somebody uses a model's answers: no release breaks them unseen."""
    row = of(context).client.declare_consumer(model, name, owner, note)
    of(context).show(row, views.consumers([row]))


@consumer_app.command()
def withdraw(context: typer.Context, model: Model, name: Name) -> None:
    """Say that it uses them no more."""
    of(context).client.withdraw_consumer(model, name)


@consumer_app.command()
def acknowledge(
    context: typer.Context,
    model: Model,
    name: Name,
    major: Annotated[int, typer.Argument(help="First number of the version.")],
    note: Note = "",
) -> None:
    """Say that a consumer reads the answers of a MAJOR version rightly."""
    row = of(context).client.acknowledge_release(model, name, major, note)
    of(context).show(row, views.consumers([row]))
