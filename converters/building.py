"""Builds one release: data, training, conversion, evidence, gates, manifest, signature.

Everything happens in a folder beside ``out``, which appears only when the bundle is whole.
"""

import io
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from converters import (
    card,
    dataset,
    export,
    fallback,
    gates,
    onnx_int8,
    parity,
    provenance,
    recipe,
    recipe_code,
    signing,
    tflite_int8,
    training,
)
from converters.dataset import Rows, Snapshot
from converters.export import Float32
from converters.quiet import silenced
from converters.recipe import Recipe
from converters.refusal import WrongUse
from edge_core import baseline, durable, outputs
from edge_core.bundle import folder as folders
from edge_core.bundle import manifest as manifests
from edge_core.bundle.digest import sha256_bytes
from edge_core.bundle.manifest import (
    FileEntry,
    GateResult,
    Manifest,
    OutputContract,
    Provenance,
    VariantRecord,
    Waiver,
)
from edge_core.errors import InvalidBundle, InvalidConfiguration
from edge_core.features import definition as definitions
from edge_core.release import ReleaseRef
from edge_core.stats import histogram

GOLDEN_ROWS = 64


class Report(Protocol):
    """Where progress goes."""

    def step(self, name: str) -> AbstractContextManager[None]:
        """Show a step for as long as it runs."""
        ...


class BuildRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asked for."""

    recipe: Path
    out: Path
    release: str | None = None
    parent: Path | None = None
    waive: tuple[str, ...] = ()
    key: Path | None = None


class Target(NamedTuple):
    """How one target's file is made, run and looked at."""

    runtime: Any
    path: str
    convert: Callable[[Any, int], bytes]
    tool: Any


TARGETS = {
    "cpu-x86_64-ort": Target("onnxruntime", "model.onnx", export.onnx_float, onnx_int8),
    "cpu-x86_64-tflite": Target("litert", "model.tflite", export.tflite_float, tflite_int8),
}


class Variant(NamedTuple):
    """One target's file and what was measured of it."""

    record: VariantRecord
    data: bytes
    golden: Float32
    metrics: dict[str, float]
    float_products: list[str]


def build(request: BuildRequest, report: Report) -> Manifest:
    """Build the release that the request names.

    Raises:
        SerinusError: wrong use, bad input, or refused by a gate; nothing stands at ``out`` then.
    """
    if request.out.exists():
        raise WrongUse(f"{request.out} exists already: name another folder with --out")
    waivers = [gates.parse_waiver(text) for text in request.waive]
    chosen = recipe.load(request.recipe, request.release)
    unknown = set(chosen.targets) - set(TARGETS)
    if unknown:
        raise InvalidConfiguration(
            f"unknown target {', '.join(sorted(unknown))}; known are {', '.join(TARGETS)}"
        )
    if chosen.input != "features":
        raise InvalidConfiguration(
            f"release {chosen.version} takes {chosen.input}; cannot build it"
        )
    parent = folders.read(request.parent) if request.parent else None
    request.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{request.out.name}.", dir=request.out.parent
    ) as temporary:
        folder = Path(temporary) / "bundle"
        folder.mkdir()
        manifest = _fill(folder, request, chosen, parent, waivers, report)
        if request.key is not None:
            with report.step("sign"):
                signing.sign_folder(folder, request.key)
        folder.chmod(0o755)
        folder.replace(request.out)
        durable.sync_folder(request.out.parent)
    return manifest


def _fill(
    folder: Path,
    request: BuildRequest,
    chosen: Recipe,
    parent: Manifest | None,
    waivers: list[Waiver],
    report: Report,
) -> Manifest:
    code = recipe_code.load(request.recipe, chosen.entry)
    with report.step("data and features"):
        snapshot = _snapshot(request.recipe, chosen, code)
    with report.step("train"), silenced():
        network, simple = _train(chosen, code, snapshot)
    test = snapshot.rows["test"]
    slices = gates.slices_of(chosen, test)
    floating = export.reference_logits(network, test.features)
    variants = []
    for target in chosen.targets:
        with report.step(f"convert to {target}"), silenced():
            variants.append(_variant(target, network, snapshot, floating, slices))
    with report.step("evidence and gates"):
        names = snapshot.definition.feature_names
        results = _judge(chosen, snapshot, variants, floating, slices, parent, simple, names)
        results = gates.apply_waivers(results, waivers)
        gates.enforce(results)
        files = _files(snapshot, variants, simple, network)
        manifest = _manifest(request, chosen, snapshot, variants, results, waivers, parent, files)
        _write(folder, files | {manifests.CARD: card.render(manifest).encode()}, manifest)
    return folders.read(folder)


def _snapshot(folder: Path, chosen: Recipe, code: recipe_code.RecipeCode) -> Snapshot:
    path = folder / chosen.features
    definition = definitions.parse(folders.read_limited(path, definitions.MAX_DEFINITION_BYTES))
    snapshot = dataset.cut(
        definition, chosen.output.classes, chosen.slices, code.recordings(chosen.settings)
    )
    dataset.check_disjoint(snapshot)
    return snapshot


def _train(
    chosen: Recipe, code: recipe_code.RecipeCode, snapshot: Snapshot
) -> tuple[Any, baseline.LogisticBaseline]:
    definition, rows = snapshot.definition, snapshot.rows["train"]
    network = training.train(chosen, code, snapshot).network
    return network, fallback.fit(definition, rows, len(snapshot.classes), chosen.fallback)


def _variant(
    target: str,
    network: Any,
    snapshot: Snapshot,
    floating: Float32,
    slices: "dict[str, gates.Bool]",
) -> Variant:
    how = TARGETS[target]
    test = snapshot.rows["test"]
    floats = how.convert(network, len(snapshot.definition.features))
    data = how.tool.quantise(floats, snapshot.rows["calibration"].features)
    logits = how.tool.run(data, test.features)
    expected = how.tool.run(data, _golden_rows(snapshot).features)
    placed = how.tool.placement(data)
    record = VariantRecord(
        target=target,
        runtime=how.runtime,
        path=f"variants/{target}/{how.path}",
        quantization=how.tool.SETTINGS,
        placement=placed,
        numeric_error=parity.numeric_error(floating, logits),
        top1_agreement=parity.top1_agreement(floating, logits),
        tolerance=parity.golden_tolerance(expected),
        latency_us=parity.latency_us(how.tool.runner(data), test.features),
        measured_on=provenance.machine(),
        ran_on_hardware=True,
        size_ratio=len(data) / len(floats),
    )
    metrics = gates.metrics(logits, test, slices)
    return Variant(record, data, expected, metrics, how.tool.float_products(placed))


def _judge(
    chosen: Recipe,
    snapshot: Snapshot,
    variants: list[Variant],
    floating: Float32,
    slices: "dict[str, gates.Bool]",
    parent: Manifest | None,
    simple: baseline.LogisticBaseline,
    names: list[str],
) -> list[GateResult]:
    test = snapshot.rows["test"]
    full = gates.metrics(floating, test, slices)
    plain = gates.metrics(simple.logits(test.features, names), test, slices)
    results = []
    for variant in variants:
        results += gates.judge_variant(
            chosen, variant.record, variant.metrics, full, slices, variant.float_products
        )
    size = max(len(variant.data) for variant in variants)
    own = variants[0].metrics
    return results + gates.judge_release(chosen, own, plain, parent, slices, size)


def _golden_rows(snapshot: Snapshot) -> Rows:
    """A spread of golden rows, so that the file stays small."""
    rows = snapshot.rows["golden"]
    places = np.unique(np.linspace(0, len(rows) - 1, GOLDEN_ROWS).astype(int))
    return Rows(
        samples=rows.samples[places],
        features=rows.features[places],
        labels=rows.labels[places],
        slices={name: tuple(values[i] for i in places) for name, values in rows.slices.items()},
        entities=rows.entities,
    )


def _files(
    snapshot: Snapshot,
    variants: list[Variant],
    simple: baseline.LogisticBaseline,
    network: Any,
) -> dict[str, bytes]:
    definition, train = snapshot.definition, snapshot.rows["train"]
    scores = outputs.probabilities(export.reference_logits(network, train.features))
    reference = histogram.build(
        inputs={n: train.samples[:, :, i].ravel() for i, n in enumerate(definition.input_names)},
        features={n: train.features[:, i] for i, n in enumerate(definition.feature_names)},
        confidence=scores.max(axis=1),
        predicted=scores.argmax(axis=1),
        classes=len(snapshot.classes),
    )
    chosen = _golden_rows(snapshot)
    arrays = {f"expected.{variant.record.target}": variant.golden for variant in variants}
    content = io.BytesIO()
    arrays |= {"samples": chosen.samples, "features": chosen.features}
    np.savez(content, allow_pickle=False, **arrays)
    files = {
        manifests.FEATURES: definitions.serialize(definition),
        manifests.REFERENCE: histogram.serialize(reference),
        manifests.GOLDEN: content.getvalue(),
        manifests.FALLBACK: baseline.serialize(simple),
    }
    return files | {variant.record.path: variant.data for variant in variants}


def _manifest(
    request: BuildRequest,
    chosen: Recipe,
    snapshot: Snapshot,
    variants: list[Variant],
    results: list[GateResult],
    waivers: list[Waiver],
    parent: Manifest | None,
    files: dict[str, bytes],
) -> Manifest:
    head, dirty = provenance.commit(request.recipe)
    parent_ref: ReleaseRef | None = folders.ref(request.parent) if request.parent else None
    return Manifest(
        model=chosen.model,
        version=chosen.version,
        parent=parent_ref,
        description=chosen.description,
        output=OutputContract(
            name=export.OUTPUT, classes=chosen.output.classes, meaning=chosen.output.meaning
        ),
        features_sha256=sha256_bytes(files[manifests.FEATURES]),
        slices=chosen.slices,
        datasets=snapshot.records(chosen.model, request.recipe.name),
        provenance=Provenance(
            recipe=request.recipe.resolve().name,
            recipe_sha256=recipe_code.digest(request.recipe, recipe.release_file(chosen)),
            settings=dict(chosen.settings),
            code_commit=head,
            code_dirty=dirty,
            seed=chosen.seed,
            tools=provenance.tools(),
            machine=provenance.machine(),
        ),
        variants=[variant.record for variant in variants],
        budget=chosen.budget,
        metrics=variants[0].metrics,
        gates=results,
        waivers=waivers,
        label_delay_seconds=chosen.label_delay_seconds,
        files=[_entry(path, data) for path, data in sorted(files.items())],
    )


def _entry(path: str, data: bytes) -> FileEntry:
    return FileEntry(path=path, size=len(data), sha256=sha256_bytes(data))


def _write(folder: Path, files: dict[str, bytes], manifest: Manifest) -> None:
    """Write the files, and the manifest over all of them, card included."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    listed = [_entry(path, data) for path, data in sorted(files.items())]
    manifest = msgspec.structs.replace(manifest, files=listed)
    data = manifests.serialize(manifest)
    if manifests.parse(data) != manifest:
        raise InvalidBundle("the manifest does not survive writing and reading; nothing is shipped")
    (folder / manifests.MANIFEST).write_bytes(data)
