"""Recomputes history: a feature definition over a log, into parts that can be gone on with."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters import definition_source
from converters.history import feature_rows, fingerprint, parts, piecewise, value_diff
from converters.history.feature_rows import FEATURES, Rows
from converters.history.parts import Done, Job, Output
from converters.history.piecewise import Counts, Report
from converters.history.value_diff import Diff
from converters.opening import opened
from edge_core.bundle import folder as folders
from edge_core.bundle import manifest as manifests
from edge_core.errors import InvalidConfiguration, InvalidInput
from edge_core.features import definition as definitions
from edge_core.features.definition import FeatureDefinition

FEATURES_DIGEST = b"serinus.features_sha256"
FEATURES_VERSION = b"serinus.features_v"
"""Keys of a part's schema metadata."""
SOURCES = (".json", ".toml")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What to compute, of what, and where to."""

    definition: FeatureDefinition
    log: Path
    output: Path
    keep: Sequence[str] = ()
    restart: bool = False
    part_rows: int | None = None
    """Rows of a part; by default what 64 MiB hold, at most 65,536."""


def load(features: Path) -> FeatureDefinition:
    """The definition that a person names: a file, or a bundle with its own.

    Raises:
        InvalidConfiguration: there is none at the path, or it is none.
        InvalidBundle: the bundle's is not the one that its manifest lists.
    """
    if features.suffix in SOURCES and not features.is_dir():
        if not features.is_file():
            raise InvalidConfiguration(f"there is no {features}: name a definition, or a bundle")
        return definition_source.load(features.parent, features.name)
    with opened(features) as folder:
        manifest = folders.read(folder)
        path = folder / manifests.FEATURES
        folders.check_file(path, manifest.file(manifests.FEATURES))
        return definitions.parse(folders.read_limited(path, definitions.MAX_DEFINITION_BYTES))


def run(request: Request, report: Report) -> Done:
    """Compute what is left to compute.

    Args:
        request: what to do.
        report: is told of the progress.

    Raises:
        InvalidInput: the log, or something in it, is refused; finished parts stay.
        InvalidConfiguration: the output belongs to something else.
        InvalidBundle: a registered function is not the one that the definition names.
        Unavailable: another run writes to the output, or the disk refuses.
    """
    rows = feature_rows.opened(request.log, request.definition, request.keep)
    feature_rows.check_names(rows.identity, request.definition.feature_names)
    job = job_of(request, rows, command="backfill")
    with parts.opened(request.output, job, restart=request.restart) as output:
        return finished(output, rows, lambda table: wide(table, request.definition), report)


def compare(request: Request, job: Job, old: Path, key: Sequence[str]) -> Diff:
    """Compare a finished output with old values.

    Args:
        request: that made it.
        job: as the output tells it.
        old: a Parquet file, or a folder of such files.
        key: columns that tell rows apart on both sides; by default the row's number in the log, or
            the stream and the time of a window's last sample.

    Raises:
        InvalidConfiguration, InvalidInput: they cannot be compared.
    """
    rows = feature_rows.opened(request.log, request.definition, request.keep)
    names = request.definition.feature_names
    with parts.opened(request.output, job) as output:
        return value_diff.compare(
            request.output, old, names, rows.identity, key or rows.key, output.scratch()
        )


def finished(
    output: Output,
    rows: Rows,
    finish: piecewise.Finish,
    report: Report,
    more: Callable[[], Counts] = dict,
) -> Done:
    """Go on to the end, where the input has to be what it was at the beginning.

    Args:
        output: where to.
        rows: the source.
        finish: makes what is written of them.
        report: is told of the progress.
        more: counts of the whole output beside the source's.
    """
    if output.done is not None:
        return output.done
    report.begun(rows.total, output.state.read)
    piecewise.run(rows, finish, rows.schema().empty_table(), output, report)
    check_unchanged(output, rows)
    return output.finish({**rows.counts(), **more()})


def check_unchanged(output: Output, rows: Rows) -> None:
    """Raise :class:`InvalidInput` where the input is not what it was at the beginning."""
    if fingerprint.of(rows.files, rows.base) != output.job.input:
        raise InvalidInput(
            f"{rows.base} changed while it was read: begin anew with --restart once it stays as it "
            "is"
        )


def job_of(
    request: Request, rows: Rows, *, command: str, model: str = "", by: str = "one process"
) -> Job:
    """What an output of these rows depends on."""
    width = rows.width + getattr(rows, "sample_width", 0)
    return Job(
        command=command,
        by=by,
        features=digest(request.definition),
        model=model,
        keep=list(request.keep),
        part_rows=request.part_rows or piecewise.part_rows(4 * width),
        input=fingerprint.of(rows.files, rows.base),
    )


def digest(definition: FeatureDefinition) -> str:
    """Sha256 of the definition as bundles carry it."""
    return hashlib.sha256(definitions.serialize(definition)).hexdigest()


def wide(rows: Any, definition: FeatureDefinition) -> Any:
    """Rows with a column for each feature, as they are written."""
    import pyarrow as pa

    values = feature_rows.matrix(rows, FEATURES)
    identity = [name for name in rows.column_names if name not in (FEATURES, feature_rows.SAMPLES)]
    schema = pa.schema(
        [
            *(rows.schema.field(name) for name in identity),
            *(pa.field(name, pa.float32()) for name in definition.feature_names),
        ],
        metadata=metadata(definition),
    )
    columns = [rows.column(name) for name in identity]
    return pa.table([*columns, *(pa.array(column) for column in values.T)], schema=schema)


def metadata(definition: FeatureDefinition) -> dict[bytes, bytes]:
    """Of every part's schema."""
    return {
        FEATURES_DIGEST: digest(definition).encode(),
        FEATURES_VERSION: str(definition.v).encode(),
    }
