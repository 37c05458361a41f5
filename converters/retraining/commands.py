"""``serinus-convert worker``."""

import os
import socket
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from converters.ceremony.options import PassphraseFile

POLL_SECONDS = 5.0


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
    from converters import progress, signing
    from converters.appeals.answering import Shelf, answer_waiting
    from converters.appeals.server import FleetAppeals
    from converters.cli import console
    from converters.fleet_http import FleetHttp, read_token
    from converters.keys import access
    from converters.list_writer import ReleaseKey
    from converters.retraining import material
    from converters.retraining import worker as working
    from converters.retraining.server import FleetRequests, LeaseLost
    from edge_core.errors import Unavailable

    http = FleetHttp(server, read_token(token_file))
    source, appeals = FleetRequests(http), FleetAppeals(http)
    shelf = Shelf(repository=repository, keys=keys, work=work)
    known = sorted(material.recipes(recipes))
    secrets = access.of_person(passphrase_file)
    # Before the work, not after it; nobody is there to be asked then.
    approving = ReleaseKey(place=releases_key, access=secrets).open_in(keys)
    place = working.Place(
        statement_key=signing.open_key(statement_key or keys / signing.PRIVATE_KEY, secrets),
        releases_key=approving,
        recipes=recipes,
        repository=repository,
        keys=keys,
        work=work,
        data=data,
        cache=cache,
        fixed=_fixed(fixed or []),
        targets=tuple(part for part in (targets or "").split(",") if part),
    )
    me = name or f"{socket.gethostname()}:{os.getpid()}"[:64]
    console.print(f"worker {me} builds {', '.join(known)}", markup=False)
    while True:
        try:
            answer_waiting(shelf, appeals, lambda text: console.print(text, markup=False))
            claimed = source.claim(me, known)
        except Unavailable as error:
            if once:
                raise
            sys.stderr.write(f"serinus-convert: {error}\n")
            claimed = None
        if claimed is None:
            if once:
                console.print("no request is open", markup=False)
                return
            time.sleep(POLL_SECONDS)
            continue
        console.print(f"request {claimed.request}: {claimed.model}: {claimed.reason}", markup=False)
        try:
            with progress.shown(console) as report:
                outcome = working.carry_out(place, source, claimed, report)
        except (LeaseLost, Unavailable) as error:
            if once:
                raise
            sys.stderr.write(f"serinus-convert: request {claimed.request}: {error}\n")
            continue
        if once:
            _end(outcome.state, outcome.text)
        console.print(f"request {claimed.request} {outcome.state}: {outcome.text}", markup=False)
        if once:
            return


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
