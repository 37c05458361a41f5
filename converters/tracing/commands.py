"""``serinus-convert trace``. Arguments only."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def trace(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder or archive.")],
    key: Annotated[Path | None, typer.Option(help="Public statement key to trust.")] = None,
    repository: Annotated[
        Path | None, typer.Option(help="Folder of the release repository.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="1.root.json to trust the repository by.")
    ] = None,
    server: Annotated[str | None, typer.Option(help="URL of the fleet server.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="Token of the role viewer, or of another.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Follow a bundle from its data to its rollouts: 0 all verified, 1 broken, 3 not all known."""
    from datetime import UTC, datetime

    from rich.console import Console

    from converters.fleet_http import FleetHttp, read_token
    from converters.opening import opened
    from converters.tracing import chain, view
    from edge_core.errors import InvalidConfiguration

    if (server is None) != (token_file is None):
        raise InvalidConfiguration("--server and --token-file go together: give both or neither")
    http = FleetHttp(server, read_token(token_file)) if server and token_file else None
    with opened(bundle) as folder:
        found = chain.trace(
            folder,
            key=key,
            repository=repository,
            root=root,
            server=http,
            now=datetime.now(UTC),
        )
    if as_json:
        sys.stdout.write(view.as_json(found) + "\n")
    else:
        width = None if sys.stdout.isatty() else view.UNBROKEN
        view.show(Console(highlight=False, width=width), found)
    found.check()
