"""``serinus-convert repository``: what of it ends when. Arguments only."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from converters.ceremony import options
from converters.ceremony.options import Repository, Trusted, Within

app = typer.Typer(
    name="repository", no_args_is_help=True, help="The release repository as it stands."
)


@app.callback()
def group() -> None:
    """The release repository as it stands."""


@app.command()
def status(
    repository: Repository,
    trusted_root: Trusted = None,
    within: Within = "30d",
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say what ends when; exit code 3 where people have to sign something soon."""
    show(repository, trusted_root, options.span(within, "--within"), as_json=as_json)


def show(
    repository: Path, trusted: Path | None, within: timedelta, *, as_json: bool = False
) -> None:
    """Print every role's end.

    Raises:
        CeremonyRefused: one is past, comes within the given time, or is not trusted.
    """
    import msgspec

    from converters.ceremony import expiry, showing
    from converters.refusal import CeremonyRefused

    found = expiry.of_repository(repository, trusted, options.now(), within)
    if as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        showing.endings(found)
    waiting = expiry.needs_people(found)
    if waiting:
        raise CeremonyRefused(
            "; ".join(f"{ending.role} is {ending.standing}: {ending.fix}" for ending in waiting)
        )
