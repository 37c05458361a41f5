"""Scores a log with a bundle: its features, its model, its fallback, as a device would.

Each row is answered in a batch of 64, so that an answer depends on nothing but its row.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters import checking, host, incumbent
from converters.history import backfill, feature_rows, parts
from converters.history.feature_rows import FEATURES, SAMPLES
from converters.history.parts import Done, Output
from converters.history.piecewise import ALIGNED, Report
from converters.model_file import Runner
from converters.quiet import silenced
from converters.refusal import StageFailed
from edge_core import baseline as baselines
from edge_core import outputs
from edge_core.bundle import folder as folders
from edge_core.bundle import manifest as manifests
from edge_core.bundle.manifest import Manifest, VariantRecord
from edge_core.errors import InvalidBundle, Unavailable, quoted
from edge_core.features import definition as definitions
from edge_core.release import ReleaseRef

LABEL, CONFIDENCE, SERVED_BY = "label", "confidence", "served_by"
PROBABILITY = "probability="
"""Begins the name of each class's column."""
RELEASE = ("model", "version", "digest", "target")
SERVED = ("model", "fallback")

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What to score, with what, and where to."""

    bundle: Path
    """A folder."""
    log: Path
    output: Path
    target: str | None = None
    """By default the bundle's first that runs here."""
    key: Path | None = None
    """Public statement key that has to have signed the bundle."""
    keep: Sequence[str] = ()
    restart: bool = False
    part_rows: int | None = None


def run(request: Request, report: Report) -> Done:
    """Score what is left to score.

    Args:
        request: what to do.
        report: is told of the progress.

    Raises:
        UntrustedBundle, InvalidBundle: the bundle is not what its manifest says, or not signed.
        Unavailable: no variant runs here; or as for backfill.
        InvalidInput, InvalidConfiguration: as for backfill.
    """
    model = Model.open(request.bundle, request.target, request.key)
    task = backfill.Request(
        definition=model.definition,
        log=request.log,
        output=request.output,
        keep=request.keep,
        restart=request.restart,
        part_rows=request.part_rows,
    )
    rows = feature_rows.opened(
        request.log, model.definition, request.keep, samples=model.takes_samples
    )
    feature_rows.check_names(rows.identity, model.columns)
    job = backfill.job_of(task, rows, command="score", model=model.name)
    with parts.opened(request.output, job, restart=request.restart) as output:
        return backfill.finished(output, rows, model.answered, report, lambda: served(output))


class Model:
    """A bundle's variant, open on this machine, with all that an answer needs."""

    def __init__(
        self, folder: Path, manifest: Manifest, ref: ReleaseRef, variant: VariantRecord
    ) -> None:
        """Open a variant of a bundle whose files were checked.

        Raises:
            StageFailed: the runtime refuses the file, or is not here.
            InvalidBundle: the bundle's parts do not fit each other.
        """
        self.ref = ref
        self.variant = variant
        self.classes = manifest.output.classes
        self.definition = definitions.parse(
            folders.read_limited(folder / manifests.FEATURES, definitions.MAX_DEFINITION_BYTES)
        )
        self._baseline = baselines.parse(
            folders.read_limited(folder / manifests.FALLBACK, baselines.MAX_BASELINE_BYTES)
        )
        self.takes_samples = manifest.input == "samples"
        self._input, self._output = manifest.input, manifest.output.name
        self._shape = (
            self.definition.raw_shape
            if self.takes_samples
            else (len(self.definition.feature_names),)
        )
        with silenced():
            file = incumbent.model_file(folder, manifest, variant, self._shape)
            self._run: Runner = host.runner(file)
            self.logits(np.zeros((1, *self._shape), np.float32))

    @classmethod
    def open(cls, folder: Path, target: str | None, key: Path | None = None) -> "Model":
        """Check a bundle, and open the variant for a target, or the first that runs here.

        Raises:
            UntrustedBundle, InvalidBundle: what does not hold.
            Unavailable: none runs here.
        """
        manifest = checking.trusted(folder, key) if key else folders.read(folder)
        folders.check(folder, manifest)
        ref = folders.ref(folder)
        named = [manifest.variant(target)] if target else manifest.variants
        refused = ""
        for variant in named:
            if variant.runtime not in incumbent.HOST:
                refused = refused or f"{variant.target} runs by {variant.runtime}"
                continue
            try:
                return cls(folder, manifest, ref, variant)
            except StageFailed as error:
                refused = refused or f"{variant.target}: {error}"
        have = ", ".join(variant.target for variant in manifest.variants)
        raise Unavailable(
            f"no variant of {ref.name} runs on this machine ({refused}); it has {have}: name "
            "another with --target, or score where one runs"
        )

    @property
    def name(self) -> str:
        """Release, target and runtime: all of the model that answers depend on."""
        return (
            f"{self.ref.name} {self.ref.digest} {self.variant.target} {runtime_here(self.variant)}"
        )

    @property
    def columns(self) -> list[str]:
        """What is written beside a row's identity."""
        scores = [f"{PROBABILITY}{name}" for name in self.classes]
        return [LABEL, CONFIDENCE, *scores, SERVED_BY, *RELEASE]

    def logits(self, rows: Float32) -> Float32:
        """Float32 [rows, ...] as the model takes them -> float32 [rows, classes].

        Raises:
            InvalidBundle: the model does not take them.
        """
        found = [np.empty((0, len(self.classes)), np.float32)]
        for start in range(0, len(rows), ALIGNED):
            batch = np.zeros((ALIGNED, *self._shape), np.float32)
            part = rows[start : start + ALIGNED]
            batch[: len(part)] = part
            try:
                answered = self._run({self._input: batch})[self._output]
            except (ValueError, RuntimeError) as error:
                raise InvalidBundle(
                    f"{self.variant.path} does not answer its rows: {quoted(error)}"
                ) from error
            found.append(np.asarray(answered[: len(part)], np.float32))
        return np.concatenate(found)

    def answered(self, rows: Any) -> Any:
        """A part's rows as they are written."""
        import pyarrow as pa

        features = feature_rows.matrix(rows, FEATURES)
        given = feature_rows.matrix(rows, SAMPLES) if self.takes_samples else features
        logits = self.logits(given.reshape(len(given), *self._shape))
        broken = ~np.isfinite(logits).all(axis=1)
        if broken.any():
            names = self.definition.feature_names
            logits[broken] = self._baseline.logits(features[broken], names)
        scores = outputs.probabilities(logits)
        best = scores.argmax(axis=1)
        count = len(scores)
        release = (self.ref.model, self.ref.version, self.ref.digest, self.variant.target)
        identity = [name for name in rows.column_names if name not in (FEATURES, SAMPLES)]
        columns = [
            *(rows.column(name) for name in identity),
            pa.array(np.array(self.classes, np.object_)[best], pa.string()),
            pa.array(scores.max(axis=1, initial=0.0)),
            *(pa.array(np.ascontiguousarray(column)) for column in scores.T),
            pa.array(np.array(SERVED, np.object_)[broken.astype(np.int64)], pa.string()),
            *(pa.array([text] * count, pa.string()) for text in release),
        ]
        kinds = [*(rows.schema.field(name) for name in identity)]
        kinds += [
            pa.field(name, column.type)
            for name, column in zip(self.columns, columns[len(identity) :], strict=True)
        ]
        return pa.table(
            columns, schema=pa.schema(kinds, metadata=backfill.metadata(self.definition))
        )


def runtime_here(variant: VariantRecord) -> str:
    """Name and version of what runs a variant's file on this machine."""
    import importlib.metadata

    package = "onnxruntime" if incumbent.HOST[variant.runtime] == "onnx" else "ai-edge-litert"
    return f"{package} {importlib.metadata.version(package)}"


def served(output: Output) -> dict[str, dict[str, int]]:
    """How many rows of all parts model and fallback answered."""
    from pyarrow import parquet

    counts: Counter[str] = Counter(dict.fromkeys(SERVED, 0))
    for part in output.state.parts:
        column = parquet.read_table(output.folder / part.name, columns=[SERVED_BY]).column(0)
        counts.update(column.to_pylist())
    return {SERVED_BY: dict(counts)}
