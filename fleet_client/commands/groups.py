"""``serinus device`` and ``serinus group``."""

from typing import Annotated

import typer

from fleet_client.commands.context import of
from fleet_client.views import groups as views
from fleet_client.views.devices import facts

device_app = typer.Typer(help="Say where devices are and what they are for.", no_args_is_help=True)
group_app = typer.Typer(help="Save queries over devices.", no_args_is_help=True)

Query = Annotated[
    str,
    typer.Argument(help="Such as 'site=berlin side=left seen<2h name=watch-*', or a group's name."),
]
Tags = Annotated[
    list[str], typer.Argument(metavar="TAG...", help="Small letters, digits, - and _.")
]
Name = Annotated[str, typer.Argument(help="Name of the group.")]


@device_app.command("show")
def show_device(
    context: typer.Context, name: Annotated[str, typer.Argument(help="Its name.")]
) -> None:
    """Show one device with its whole reported state."""
    row = of(context).client.device(name)
    of(context).show(row, facts(row))


@device_app.command()
def site(
    context: typer.Context,
    query: Query,
    site: Annotated[str, typer.Argument(help="Where they are; empty for nowhere.")],
) -> None:
    """Set the site of devices: rollouts may spare a site that many devices change at."""
    names = of(context).client.label(query, site=site)
    of(context).show(names, views.labelled(names))


@device_app.command()
def tag(context: typer.Context, query: Query, tags: Tags) -> None:
    """Give devices tags."""
    names = of(context).client.label(query, add_tags=tags)
    of(context).show(names, views.labelled(names))


@device_app.command()
def untag(context: typer.Context, query: Query, tags: Tags) -> None:
    """Take tags from devices."""
    names = of(context).client.label(query, remove_tags=tags)
    of(context).show(names, views.labelled(names))


@device_app.command()
def retire(
    context: typer.Context,
    query: Query,
    back: Annotated[bool, typer.Option("--back", help="Count on them again.")] = False,
) -> None:
    """Count on devices no more: they take part in no rollout, and nobody misses them."""
    names = of(context).client.label(query, retired=not back)
    of(context).show(names, views.labelled(names))


@group_app.command("list")
def list_groups(context: typer.Context) -> None:
    """List the groups."""
    rows = of(context).client.groups()
    of(context).show(rows, views.groups(rows))


@group_app.command()
def show(context: typer.Context, name: Name) -> None:
    """Show a group and who is in it now."""
    row = of(context).client.group(name)
    of(context).show(row, views.group(row))


@group_app.command()
def save(context: typer.Context, name: Name, query: Query) -> None:
    """Save a query under a name."""
    row = of(context).client.save_group(name, query)
    of(context).show(row, views.groups([row]))


@group_app.command()
def drop(context: typer.Context, name: Name) -> None:
    """Remove a group; its devices stay as they are."""
    client = of(context).client
    client.drop_group(name)
    rows = client.groups()
    of(context).show(rows, views.groups(rows))
