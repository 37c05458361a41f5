"""Commands over data: recompute features of history, score it. Arguments only."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from converters.refusal import Stopped

if TYPE_CHECKING:
    from converters.history.parts import Done
    from converters.history.row_progress import RowProgress

Input = Annotated[
    Path,
    typer.Option(
        "--input",
        help="Log: of requests a folder; of samples .parquet, .csv, or a folder of such files.",
    ),
]
OutputFolder = Annotated[
    Path, typer.Option("--output", help="Folder for Parquet parts; goes on with what is there.")
]
Keep = Annotated[
    str | None, typer.Option(help="Further columns of the requests, with commas between.")
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Take away what --output has, and begin anew.")
]


def backfill(
    features: Annotated[Path, typer.Argument(help="features.json, features.toml, or a bundle.")],
    log: Input,
    output: OutputFolder,
    keep: Keep = None,
    old: Annotated[
        Path | None, typer.Option(help="Old values to compare with: Parquet, file or folder.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Columns that tell rows apart, for --old; commas between.")
    ] = None,
    restart: Restart = False,
    dask: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler, or local for workers here.")
    ] = None,
    partitions: Annotated[
        int | None, typer.Option(help="How many ways Dask deals out the entities.", min=1)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Compute features of a log's whole history, in constant memory; go on after a kill."""
    import msgspec

    from converters.history import backfill as backfills
    from converters.history import partitioned, value_diff
    from converters.refusal import WrongUse

    if key and old is None:
        raise WrongUse("--key says how to compare with --old: name the old values, too")
    if (dask is None) != (partitions is None):
        raise WrongUse("--dask and --partitions belong together: name both or none")
    if old is not None and old.resolve() == output.resolve():
        raise WrongUse("--old is --output: new values would be compared with themselves")
    console = _console(as_json)
    request = backfills.Request(
        definition=backfills.load(features),
        log=log,
        output=output,
        keep=_listed(keep),
        restart=restart,
    )
    with _shown(console, "backfill", output) as report:
        if dask is None or partitions is None:
            done = backfills.run(request, report)
        else:
            done = partitioned.run(request, report, address=dask, partitions=partitions)
    _summarise(console, done, output)
    found = None
    if old is not None:
        found = backfills.compare(request, done.job, old, _listed(key))
        value_diff.show(console, found)
    if as_json:
        said = {"output": str(output), "done": done, "diff": found}
        sys.stdout.write(msgspec.json.encode(said).decode() + "\n")


def score(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder or archive.")],
    log: Input,
    output: OutputFolder,
    target: Annotated[
        str | None, typer.Option(help="Variant that answers; by default the first that runs here.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="Public statement key that has to have signed the bundle.")
    ] = None,
    keep: Keep = None,
    restart: Restart = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Answer a log's requests or windows with a bundle, as a device would; go on after a kill."""
    import msgspec

    from converters.history import batch_scoring
    from converters.opening import opened

    console = _console(as_json)
    with opened(bundle) as folder, _shown(console, "score", output) as report:
        request = batch_scoring.Request(
            bundle=folder,
            log=log,
            output=output,
            target=target,
            key=key,
            keep=_listed(keep),
            restart=restart,
        )
        done = batch_scoring.run(request, report)
    _summarise(console, done, output)
    if as_json:
        said = {"output": str(output), "done": done}
        sys.stdout.write(msgspec.json.encode(said).decode() + "\n")


def _console(as_json: bool) -> Console:
    """Where people read; programs have standard output to themselves."""
    return Console(highlight=False, soft_wrap=True, stderr=as_json)


@contextlib.contextmanager
def _shown(console: Console, what: str, output: Path) -> "Iterator[RowProgress]":
    from converters.history.row_progress import RowProgress

    try:
        with RowProgress(console, what) as report:
            yield report
    except KeyboardInterrupt as error:
        raise Stopped(
            f"stopped; finished parts are in {output}: run the command again to go on"
        ) from error


def _summarise(console: Console, done: "Done", output: Path) -> None:
    from converters.history.row_progress import show_counts

    totals = dict(done.totals)
    served = totals.pop("served_by", {})
    show_counts(console, totals)
    for who, count in served.items():
        console.print(f"  {count:,} rows served by the {who}", markup=False)
    console.print(
        f"{done.rows:,} rows of {done.read:,} rows of the log in {output}, {len(done.parts)} parts",
        markup=False,
    )


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(name for name in (text or "").split(",") if name)
