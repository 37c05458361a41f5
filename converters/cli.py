"""``serinus-convert``: arguments only. Exit codes: 0 done, 1 wrong use, 2 bad input, 3 refused."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer.exceptions import TyperException

from edge_core.errors import SerinusError

WRONG_USE = 1
BAD_INPUT = 2
REFUSED = 3
STOPPED = 130

app = typer.Typer(
    name="serinus-convert",
    no_args_is_help=True,
    help="Turn a trained PyTorch model into proven, signed int8 bundles.",
)
console = Console(highlight=False, soft_wrap=True)

Bundle = Annotated[Path, typer.Argument(help="Bundle folder or archive.")]
Repository = Annotated[Path, typer.Option(help="Folder of the release repository.")]
Keys = Annotated[Path, typer.Option(help="Folder of the release team's keys.")]


@app.command()
def build(
    recipe: Annotated[Path, typer.Argument(help="Recipe folder, with recipe.toml in it.")],
    out: Annotated[Path, typer.Option(help="Where the bundle shall stand; must not exist.")],
    release: Annotated[str | None, typer.Option(help="Which of the recipe's releases.")] = None,
    parent: Annotated[Path | None, typer.Option(help="Bundle to be no worse than.")] = None,
    waive: Annotated[
        list[str] | None, typer.Option(help="GATE[:SLICE]=REASON; recorded in the manifest.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Statement key to sign with.")] = None,
) -> None:
    """Train, convert, prove and sign one release."""
    from converters import building, progress

    request = building.BuildRequest(
        recipe=recipe, out=out, release=release, parent=parent, waive=tuple(waive or ()), key=key
    )
    with progress.shown(console) as report:
        bundle = building.build(request, report)
    progress.summarise(console, bundle, out)


@app.command()
def verify(
    bundle: Bundle,
    key: Annotated[Path, typer.Option(help="Public statement key to trust.")],
) -> None:
    """Check a bundle's signature, every file, and that golden inputs give golden outputs."""
    from converters import checking
    from converters.opening import opened

    with opened(bundle) as folder:
        for line in checking.verify(folder, key):
            console.print(line, markup=False)


@app.command()
def inspect(bundle: Bundle) -> None:
    """Show what a bundle says about itself; nothing is verified."""
    from converters import progress
    from converters.opening import opened
    from edge_core.bundle import folder as bundle_folder

    with opened(bundle) as folder:
        progress.describe(console, bundle_folder.read(folder), bundle_folder.ref(folder))


@app.command()
def pack(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    out: Annotated[Path, typer.Option(help="Archive to write; must not exist.")],
) -> None:
    """Put a bundle into one deterministic archive, to carry it by hand."""
    from edge_core.bundle import archive
    from edge_core.errors import InvalidConfiguration

    if out.exists():
        raise InvalidConfiguration(f"{out} exists already: name another archive with --out")
    archive.pack(bundle, out)
    console.print(f"{out}: {out.stat().st_size} bytes", markup=False)


@app.command()
def keygen(folder: Annotated[Path, typer.Argument(help="Folder for the key pair.")]) -> None:
    """Make the key pair that signs who built a bundle."""
    from converters import signing

    private = signing.generate_key(folder)
    console.print(
        f"{private}: keep it in CI\n{folder / signing.PUBLIC_KEY}: pin it on devices", markup=False
    )


@app.command()
def init_repository(repository: Repository, keys: Keys) -> None:
    """Make an empty release repository and its keys."""
    from converters import publishing

    publishing.init_repository(repository, keys, datetime.now(UTC))
    console.print(
        f"repository in {repository}, keys in {keys}: keep root-1..3, targets and releases off "
        f"the server; give the server {keys / publishing.ONLINE}",
        markup=False,
    )


@app.command()
def publish(bundle: Bundle, repository: Repository, keys: Keys) -> None:
    """Approve a bundle: list it in the release repository."""
    from converters import publishing
    from converters.opening import opened

    with opened(bundle) as folder:
        ref = publishing.publish(folder, repository, keys, datetime.now(UTC))
    console.print(f"published {ref.name}, manifest {ref.digest}", markup=False)


@app.command()
def revoke(
    release: Annotated[str, typer.Argument(help="MODEL@VERSION")],
    repository: Repository,
    keys: Keys,
) -> None:
    """Take a release off the list: no device installs it or rolls back to it any more."""
    from converters import publishing

    publishing.revoke(release, repository, keys, datetime.now(UTC))
    console.print(f"revoked {release}", markup=False)


def main() -> None:
    """Run the command and end the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; every refusal is one line on standard error."""
    try:
        app(arguments, standalone_mode=False)
    except TyperException as error:
        said = error.format_message()  # empty where the help was printed instead
        return _say(said, WRONG_USE) if said else WRONG_USE
    except SerinusError as error:
        return _say(str(error), getattr(error, "exit_code", BAD_INPUT))
    except OSError as error:
        return _say(f"{error.filename or 'files'}: {error.strerror}; nothing was left", BAD_INPUT)
    except KeyboardInterrupt:
        return _say("stopped; nothing was left at --out", STOPPED)
    return 0


def _say(message: str, code: int) -> int:
    sys.stderr.write(f"serinus-convert: {message}\n")
    return code


if __name__ == "__main__":
    main()
