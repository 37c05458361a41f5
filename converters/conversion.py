"""A trained model without a recipe: ``quantize`` gives variants with evidence, but no release.

Nothing is known of labels, so the gates are numeric: how far the answers to rows that did not
calibrate lie from the float32 model's. The folder can be signed as a bundle is.
"""

import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from converters import (
    bundling,
    gates,
    judging,
    loading,
    parity,
    provenance,
    signing,
    tensors,
    variants,
)
from converters.cache import Cache, default_folder
from converters.calibration import LEAST_ROWS
from converters.ci_report import Verdicts
from converters.pipeline import Pipeline, Report
from converters.quantising import largest_error
from converters.refusal import WrongUse
from converters.settling import settle
from converters.signing import StatementKey
from converters.source import FileSource
from converters.targets import open_target
from converters.targets.profile import PROFILES
from converters.tensors import Feeds, TensorSpec
from converters.variants import Choices, Job, Variant
from edge_core import durable
from edge_core.bundle.digest import sha256_file
from edge_core.bundle.manifest import FileEntry, GateResult, VariantRecord, Waiver
from edge_core.errors import InvalidInput

CONVERSION = "conversion.json"
GOLDEN = "golden.npz"
HELD_OUT = 4
"""Every fourth row measures, the others calibrate."""
GOLDEN_ROWS = 32
MAX_MODEL_BYTES = 2 * 1024**3


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asked for."""

    model: Path
    calibration: Path
    targets: tuple[str, ...]
    out: Path
    factory: str | None = None
    choices: Choices = Choices()
    max_error: float = 0.05
    waive: tuple[str, ...] = ()
    key: Path | StatementKey | None = None
    """Opened, or the path of one that is not encrypted."""
    reports: Path | None = None
    cache: Path | None = None
    profiles: Path = PROFILES


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """What ``conversion.json`` says."""

    schema_version: int = 1
    name: str
    model_sha256: str
    factory: str | None
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    calibration_sha256: str
    calibration_rows: int
    held_out_sha256: str
    held_out_rows: int
    tools: dict[str, str]
    machine: str
    variants: list[VariantRecord]
    gates: list[GateResult]
    waivers: list[Waiver]
    files: list[FileEntry]

    @property
    def metrics(self) -> dict[str, float]:
        """None: no labels are known."""
        return {}

    @property
    def main_metric(self) -> str:
        """None."""
        return ""

    def file(self, path: str) -> FileEntry:
        """The entry of one file; raise :class:`KeyError` where there is none."""
        return {entry.path: entry for entry in self.files}[path]


def quantize(request: Request, report: Report) -> Conversion:
    """Convert a trained model for every target asked for.

    Raises:
        SerinusError: wrong use, bad input, or refused by a gate; nothing stands at ``out`` then.
    """
    if request.out.exists():
        raise WrongUse(f"{request.out} exists already: name another folder with --out")
    waivers = [gates.parse_waiver(text) for text in request.waive]
    for target in request.targets:
        open_target(target, request.profiles)
    calibration, held_out = _split(loading.load_calibration(request.calibration))
    source = _source(request, calibration)
    request.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{request.out.name}.", dir=request.out.parent
    ) as temporary:
        folder = Path(temporary) / "conversion"
        folder.mkdir()
        made = _fill(folder, request, source, calibration, held_out, waivers, report)
        if request.key is not None:
            resources = {entry.path: entry.sha256 for entry in made.files}
            signing.sign_files(folder, made.name, resources, CONVERSION, request.key)
        folder.chmod(0o755)
        folder.replace(request.out)
        durable.sync_folder(request.out.parent)
    return made


def _fill(
    folder: Path,
    request: Request,
    source: FileSource,
    calibration: Feeds,
    held_out: Feeds,
    waivers: list[Waiver],
    report: Report,
) -> Conversion:
    cache = request.cache or default_folder()
    pipeline = Pipeline(report, time.monotonic, Cache(cache))
    reference = variants.answer_in_float(source, held_out, pipeline)
    jobs = [
        Job(
            target=target,
            source=source,
            choices=request.choices,
            calibration=calibration,
            trial=held_out,
            cache=cache,
            profiles=request.profiles,
        )
        for target in request.targets
    ]
    made = variants.build_all(jobs, report)
    records = [_record(variant, reference) for variant in made]
    results = [
        gate
        for record, variant in zip(records, made, strict=True)
        for gate in gates.judge_conversion(record, variant.profile.limits, request.max_error)
    ]
    results = gates.apply_waivers(results, waivers)
    verdicts = Verdicts(
        model=request.model.stem,
        version="",
        waivers=tuple(waivers),
        gates=tuple(results),
        variants=tuple(records),
    )
    settle(verdicts, request.reports)
    files = {
        record.path: variant.compiled.data for record, variant in zip(records, made, strict=True)
    }
    files[GOLDEN] = _golden(held_out, made)
    conversion = Conversion(
        name=request.model.stem,
        model_sha256=source.sha256,
        factory=request.factory,
        inputs=list(made[0].compiled.source.inputs),
        outputs=list(made[0].compiled.source.outputs),
        calibration_sha256=tensors.digest(calibration),
        calibration_rows=tensors.rows_of(calibration),
        held_out_sha256=tensors.digest(held_out),
        held_out_rows=tensors.rows_of(held_out),
        tools=provenance.tools(),
        machine=provenance.machine(),
        variants=records,
        gates=results,
        waivers=waivers,
        files=bundling.entries(files),
    )
    _write(folder, files, conversion)
    Cache(cache).prune()
    return conversion


def _write(folder: Path, files: dict[str, bytes], conversion: Conversion) -> None:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    text = msgspec.json.format(msgspec.json.encode(conversion, order="sorted"), indent=2)
    (folder / CONVERSION).write_bytes(text + b"\n")


def _split(rows: Feeds) -> tuple[Feeds, Feeds]:
    """Calibration rows and held-out rows."""
    count = tensors.rows_of(rows)
    needed = LEAST_ROWS * HELD_OUT // (HELD_OUT - 1) + 1
    if count < needed:
        raise InvalidInput(
            f"the calibration data has {count} rows; at least {needed} are needed, of which every "
            f"{HELD_OUT}th measures and the others calibrate"
        )
    places = np.arange(count)
    measures = places % HELD_OUT == HELD_OUT - 1
    return tensors.take(rows, places[~measures]), tensors.take(rows, places[measures])


def _source(request: Request, calibration: Feeds) -> FileSource:
    return FileSource(
        path=str(request.model.resolve()),
        sha256=sha256_file(request.model, limit=MAX_MODEL_BYTES).sha256,
        factory=request.factory,
        factory_sha256=_factory_digest(request.factory),
        example=tensors.pack(tensors.take(calibration, [0, 1])),
    )


def _factory_digest(factory: str | None) -> str:
    """Of the factory's file, so that an edited one is not taken for the old; empty for none."""
    place = Path((factory or "").rpartition(":")[0])
    return sha256_file(place, limit=MAX_MODEL_BYTES).sha256 if place.is_file() else ""


def _record(variant: Variant, reference: Feeds) -> VariantRecord:
    """What is known of one variant, compared with the float32 model on held-out rows."""
    record = judging.record(variant)
    outputs = variant.tried.outputs
    if outputs is None:
        return record
    logits = [name for name, found in reference.items() if found.ndim == 2 and found.shape[1] > 1]
    return msgspec.structs.replace(
        record,
        numeric_error=largest_error(reference, outputs),
        top1_agreement=min(
            (parity.top1_agreement(reference[name], outputs[name]) for name in logits),
            default=None,
        ),
        tolerance=max(parity.golden_tolerance(found) for found in outputs.values()),
    )


def _golden(held_out: Feeds, made: list[Variant]) -> bytes:
    """Rows that other machines can check the variants with."""
    arrays = {f"input.{name}": rows[:GOLDEN_ROWS] for name, rows in held_out.items()}
    for variant in made:
        for name, found in (variant.tried.outputs or {}).items():
            arrays[f"expected.{variant.profile.target}.{name}"] = found[:GOLDEN_ROWS]
    return tensors.pack(arrays)
