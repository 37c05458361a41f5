"""``serinus-convert``: arguments only. Exit codes: 0 done, 1 wrong use, 2 bad input, 3 refused."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from typer.exceptions import TyperException

from converters import release_commands
from converters.bom import commands as bom_commands
from converters.ceremony import commands as root_commands
from converters.ceremony import delegation_commands, repository_commands
from converters.ceremony.options import PassphraseFile
from converters.console import console
from converters.history import commands as history_commands
from converters.retraining import commands as retraining_commands
from converters.tracing import commands as tracing_commands
from edge_core.errors import SerinusError

if TYPE_CHECKING:
    from converters.quantising import Method
    from converters.signing import StatementKey

WRONG_USE = 1
BAD_INPUT = 2
REFUSED = 3
STOPPED = 130

app = typer.Typer(
    name="serinus-convert",
    no_args_is_help=True,
    help="Turn a trained PyTorch model into proven, signed int8 bundles.",
)

Targets = Annotated[
    str | None, typer.Option(help="Targets instead of the recipe's, with commas between.")
]
Waive = Annotated[
    list[str] | None, typer.Option(help="GATE[:SLICE]=REASON; recorded in the manifest.")
]
Key = Annotated[
    str | None, typer.Option(help="Statement key to sign with: a file, or pkcs11:... on a token.")
]
Reports = Annotated[
    Path | None, typer.Option(help="Folder for gates.json and junit.xml, also when refused.")
]
CacheFolder = Annotated[
    Path | None, typer.Option(help="Folder of finished stages.", envvar="SERINUS_CACHE")
]
DataFolder = Annotated[
    Path | None, typer.Option(help="Folder of data snapshots.", envvar="SERINUS_DATA")
]
Bundle = Annotated[Path, typer.Argument(help="Bundle folder or archive.")]


@app.command()
def build(
    recipe: Annotated[Path, typer.Argument(help="Recipe folder, with recipe.toml in it.")],
    out: Annotated[Path, typer.Option(help="Where the bundle shall stand; must not exist.")],
    release: Annotated[str | None, typer.Option(help="Which of the recipe's releases.")] = None,
    targets: Targets = None,
    parent: Annotated[Path | None, typer.Option(help="Bundle to be no worse than.")] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="Bundle to learn from, where the recipe asks for one.")
    ] = None,
    waive: Waive = None,
    key: Key = None,
    reports: Reports = None,
    cache: CacheFolder = None,
    data: DataFolder = None,
    snapshot: Annotated[
        str | None,
        typer.Option(help="Build from this data snapshot: its id, or its folder."),
    ] = None,
    fixed: Annotated[
        str | None,
        typer.Option(help="Data snapshot; be no worse than the parent on its test rows."),
    ] = None,
    same_data_as: Annotated[
        Path | None, typer.Option(help="Bundle; refuse other data than it was made of.")
    ] = None,
    all_gates: Annotated[bool, typer.Option("--gates", help="Show passed gates, too.")] = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Train, convert, prove and sign one release."""
    from converters import building, progress
    from converters.opening import opened_if
    from converters.replay import golden_coverage

    statement_key = _statement_key(key, passphrase_file)  # whatever fails, before the work
    with (
        opened_if(parent) as before,
        opened_if(teacher) as taught_by,
        opened_if(same_data_as) as like,
        progress.shown(console) as report,
    ):
        request = building.BuildRequest(
            recipe=recipe,
            out=out,
            release=release,
            targets=_listed(targets),
            parent=before,
            teacher=taught_by,
            waive=tuple(waive or ()),
            key=statement_key,
            reports=reports,
            cache=cache,
            data=data,
            snapshot=snapshot,
            fixed=fixed,
            same_data_as=like,
        )
        bundle = building.build(request, report)
    progress.summarise(console, bundle, out, all_gates=all_gates)
    for line in golden_coverage.of_bundle(out):
        console.print(line, markup=False)


@app.command()
def quantize(
    model: Annotated[Path, typer.Argument(help="A .pt2, or weights for --factory.")],
    calibration: Annotated[Path, typer.Option(help="Rows as .npz by input name, or one .npy.")],
    targets: Annotated[str, typer.Option(help="Targets, with commas between.")],
    out: Annotated[Path, typer.Option(help="Where the result shall stand; must not exist.")],
    factory: Annotated[
        str | None, typer.Option(help="FILE.py:FUNCTION that makes the module for the weights.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="Calibration: auto, min/max, percentile or entropy.")
    ] = "auto",
    weight_only: Annotated[bool, typer.Option(help="Quantise weights only.")] = False,
    mixed: Annotated[
        bool, typer.Option(help="Leave the fewest layers in float that pass --max-error.")
    ] = False,
    max_error: Annotated[
        float, typer.Option(min=0.0, help="Largest rms error, over the output's deviation.")
    ] = 0.05,
    waive: Waive = None,
    key: Key = None,
    reports: Reports = None,
    cache: CacheFolder = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Convert a trained model, with evidence, without a recipe."""
    from converters import conversion, progress
    from converters.variants import Choices

    choices = Choices(
        method=_method(method), mixed_below=max_error if mixed else 0.0, weight_only=weight_only
    )
    request = conversion.Request(
        model=model,
        calibration=calibration,
        targets=_listed(targets),
        out=out,
        factory=factory,
        choices=choices,
        max_error=max_error,
        waive=tuple(waive or ()),
        key=_statement_key(key, passphrase_file),
        reports=reports,
        cache=cache,
    )
    with progress.shown(console) as report:
        made = conversion.quantize(request, report)
    progress.show_conversion(console, made, out)


@app.command()
def snapshot(
    recipe: Annotated[Path, typer.Argument(help="Recipe folder, with recipe.toml in it.")],
    release: Annotated[str | None, typer.Option(help="Which of the recipe's releases.")] = None,
    data: DataFolder = None,
) -> None:
    """Keep a recipe's data: builds and reproductions can start from it."""
    from converters import progress
    from converters.data import commands as data_commands

    with progress.shown(console) as report:
        taken = data_commands.take(recipe, release, data, report)
    data_commands.show(console, taken)


@app.command()
def snapshots(
    data: DataFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List the data snapshots that were kept."""
    import msgspec

    from converters.data import commands as data_commands

    found = data_commands.kept(data)
    if as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        data_commands.show_all(console, found)


@app.command()
def reproduce(
    bundle: Bundle,
    recipe: Annotated[
        Path | None, typer.Option(help="Recipe folder; by default below firmware_bundles.")
    ] = None,
    parent: Annotated[Path | None, typer.Option(help="The parent's bundle, if it had one.")] = None,
    data: DataFolder = None,
) -> None:
    """Build a bundle's release again in a fresh process and compare every file.

    From the data snapshot that it names, where that was kept; other data is refused.
    """
    from converters import progress, reproducing
    from converters.opening import opened, opened_if
    from converters.refusal import RefusedByGate

    with opened(bundle) as folder, opened_if(parent) as before:
        with progress.shown(console) as report, report.step("build again"):
            found = reproducing.reproduce(folder, recipe, before, data)
        progress.show_reproduction(console, found)
    if not found.holds:
        raise RefusedByGate(f"{found.release} does not reproduce: see the files above")


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="Bundle folder or archive.")],
    b: Annotated[Path, typer.Argument(help="Another one.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show two bundles side by side: metrics, slices, size, latency, provenance."""
    import msgspec

    from converters import comparing, comparison_view
    from converters.opening import opened
    from edge_core.bundle import folder as bundle_folder

    with opened(a) as first, opened(b) as second:
        found = comparing.compare(bundle_folder.read(first), bundle_folder.read(second))
    if as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        comparison_view.show(console, found)


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
def parity(
    bundle: Bundle,
    events: Annotated[
        Path,
        typer.Argument(
            help="Log: samples as .csv or .parquet, or a folder of events and requests."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Replay a log as training and as a device would; features have to agree to the bit."""
    import msgspec

    from converters import progress
    from converters.opening import opened
    from converters.refusal import RefusedByGate
    from converters.replay import replayed, replaying

    with opened(bundle) as folder:
        if as_json:
            found = replaying.parity(folder, events)
            sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        else:
            with progress.shown(console) as report:
                found = replaying.parity(folder, events, report.step)
            replayed.show(console, found)
    if not found.holds:
        raise RefusedByGate("features differ between training and serving: see above")


app.command()(tracing_commands.trace)
app.command()(bom_commands.sbom)
app.command()(retraining_commands.worker)
app.command()(history_commands.backfill)
app.command()(history_commands.score)


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


for command in (
    release_commands.keygen,
    release_commands.init_repository,
    release_commands.publish,
    release_commands.revoke,
    release_commands.renew,
):
    app.command()(command)
app.add_typer(root_commands.app)
app.add_typer(delegation_commands.app)
app.add_typer(repository_commands.app)


@app.command()
def targets(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List targets: what this machine can compile and run for each, and what is missing."""
    import msgspec

    from converters import target_commands

    found = target_commands.describe()
    if as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        target_commands.show(console, found)


@app.command()
def install_target(
    target: Annotated[str, typer.Argument(help="As 'serinus-convert targets' lists it.")],
) -> None:
    """Install what a target needs beside Serinus, in a folder of its own."""
    from converters import target_commands

    target_commands.install(target, lambda line: console.print(line, markup=False))


def _statement_key(place: str | None, passphrase_file: Path | None) -> "StatementKey | None":
    from converters import signing
    from converters.keys import access

    return signing.open_key(place, access.of_person(passphrase_file)) if place else None


def _listed(targets: str | None) -> tuple[str, ...]:
    return tuple(name for name in (targets or "").split(",") if name)


def _method(text: str) -> "Method":
    import typing

    from converters.quantising import Method
    from converters.refusal import WrongUse

    if text not in typing.get_args(Method):
        raise WrongUse(f"--method {text}: choose one of {', '.join(typing.get_args(Method))}")
    return cast("Method", text)


def main() -> None:
    """Run the command and end the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; every refusal is one line on standard error."""
    try:
        code = app(arguments, standalone_mode=False)
    except TyperException as error:
        said = error.format_message()  # empty where the help was printed instead
        return _say(said, WRONG_USE) if said else WRONG_USE
    except SerinusError as error:
        return _say(str(error), getattr(error, "exit_code", BAD_INPUT))
    except OSError as error:
        return _say(f"{error.filename or 'files'}: {error.strerror}; nothing was left", BAD_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        code = STOPPED
    # Typer makes Ctrl-C a result; commands have no results of their own.
    return _say("stopped; nothing was left half-made", STOPPED) if code == STOPPED else 0


def _say(message: str, code: int) -> int:
    sys.stderr.write(f"serinus-convert: {message}\n")
    return code


if __name__ == "__main__":
    main()
