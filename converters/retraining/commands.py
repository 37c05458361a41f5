"""``serinus-convert worker``."""

import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from converters.ceremony.options import PassphraseFile


def worker(
    recipes: Annotated[Path, typer.Argument(help="Folder that holds recipe folders.")],
    server: Annotated[str, typer.Option(help="Address of the fleet server.")],
    token_file: Annotated[Path, typer.Option(help="File with a token of role ci.")],
    repository: Annotated[Path, typer.Option(help="Release repository to publish to.")],
    keys: Annotated[Path, typer.Option(help="Keys folder, with 1.root.json in it.")],
    work: Annotated[Path, typer.Option(help="Folder for what is being built.")] = Path("work"),
    fixed: Annotated[
        list[str] | None,
        typer.Option(help="MODEL=SNAPSHOT whose test rows judge; else the oldest release's."),
    ] = None,
    targets: Annotated[
        str | None, typer.Option(help="Instead of the recipe's, with commas between.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of data snapshots.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of finished stages.")] = None,
    name: Annotated[str, typer.Option(help="How the server shows this worker.")] = "",
    releases_key: Annotated[
        str, typer.Option(help="Releases key, where it is not releases.pem in --keys.")
    ] = "",
    statement_key: Annotated[
        str, typer.Option(help="Statement key, where it is not statement.pem in --keys.")
    ] = "",
    passphrase_file: PassphraseFile = None,
    once: Annotated[
        bool,
        typer.Option(
            "--once", help="One request, then end: exit code 3 if it was refused, 2 if it failed."
        ),
    ] = False,
) -> None:
    """Train models again when the fleet server asks for it, and explain contested answers.

    A new release is built, judged, and published or refused. Appeals whose inputs were sampled are
    explained by the release that answered.
    """
    from converters import signing
    from converters.appeals.answering import Shelf
    from converters.appeals.server import FleetAppeals
    from converters.console import console
    from converters.fleet_http import FleetHttp, read_token
    from converters.keys import access
    from converters.list_writer import ReleaseKey
    from converters.retraining import material, worker
    from converters.retraining.server import FleetRequests
    from converters.retraining.turns import Turns

    http = FleetHttp(server, read_token(token_file))
    secrets = access.of_person(passphrase_file)
    place = worker.Place(
        statement_key=signing.open_key(statement_key or keys / signing.PRIVATE_KEY, secrets),
        # Before the work, not after it; nobody is there to be asked then.
        releases_key=ReleaseKey(place=releases_key, access=secrets).open_in(keys),
        recipes=recipes,
        repository=repository,
        keys=keys,
        work=work,
        data=data,
        cache=cache,
        fixed=_fixed(fixed or []),
        targets=tuple(part for part in (targets or "").split(",") if part),
    )
    turns = Turns(
        console=console,
        place=place,
        requests=FleetRequests(http),
        appeals=FleetAppeals(http),
        shelf=Shelf(repository=repository, keys=keys, work=work),
        name=name or f"{socket.gethostname()}:{os.getpid()}"[:64],
        models=sorted(material.recipes(recipes)),
    )
    turns.greet()
    if not once:
        turns.go_on()
    outcome = turns.take_one()
    if outcome is None:
        console.print("no request is open", markup=False)
    else:
        _end(outcome.state, outcome.text)


def _end(state: str, text: str) -> None:
    """Let the exit code say what came of the one request: 3 refused, 2 failed."""
    from converters.refusal import RefusedByGate
    from edge_core.errors import InvalidInput

    if state == "refused":
        raise RefusedByGate(text)
    if state == "failed":
        raise InvalidInput(text)


def _fixed(given: list[str]) -> dict[str, str]:
    from converters.refusal import WrongUse

    found = {}
    for text in given:
        model, equals, snapshot = text.partition("=")
        if not (model and equals and snapshot):
            raise WrongUse(f"--fixed {text}: write MODEL=SNAPSHOT")
        found[model] = snapshot
    return found
