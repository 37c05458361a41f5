"""Puts a bundle together: its files, its manifest, and both into a folder."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from converters import card, plots, provenance, recipe, recipe_code
from converters.data.dataset import Float32, Rows, Snapshot
from converters.evidence import Evidence
from converters.judging import Shown
from converters.recipe import Recipe
from converters.training_stage import Trained
from converters.variants import Variant
from edge_core import outputs
from edge_core.bundle import folder as folders
from edge_core.bundle import golden as goldens
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
from edge_core.errors import InvalidBundle
from edge_core.features import definition as definitions
from edge_core.stats import histogram
from edge_core.stats import projection as projections

OUTPUT = "logits"
GOLDEN_ROWS = 64


def golden_rows(snapshot: Snapshot) -> Rows:
    """A spread of golden rows, so that the file stays small."""
    rows = snapshot.rows["golden"]
    places = np.unique(np.linspace(0, len(rows) - 1, GOLDEN_ROWS).astype(int))
    return rows.only(places)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """The fp32 model's answers to the training rows."""

    logits: Float32
    """float32 [rows, classes]."""
    embedding: Float32 | None
    """float32 [rows, coordinates]; none where the release declares none."""


def files(
    chosen: Recipe,
    snapshot: Snapshot,
    trained: Trained,
    answered: Answered,
    variants: dict[str, Variant],
    shown: list[Shown],
) -> dict[str, bytes]:
    """Every file but card and manifest, by its path in the bundle.

    Args:
        chosen: names the release, and the directions of its embedding.
        snapshot: the rows.
        trained: holds the fallback.
        answered: what training saw, for the reference.
        variants: path in the bundle -> variant.
        shown: what each variant answers to the golden rows, where it was run.
    """
    return {
        manifests.FEATURES: definitions.serialize(snapshot.definition),
        manifests.REFERENCE: _reference(chosen, snapshot, answered),
        manifests.GOLDEN: _golden(snapshot, shown),
        manifests.FALLBACK: trained.fallback,
    } | {path: variant.compiled.data for path, variant in variants.items()}


def manifest(
    folder: Path,
    chosen: Recipe,
    snapshot: Snapshot,
    trained: Trained,
    records: list[VariantRecord],
    gates: list[GateResult],
    waivers: list[Waiver],
    parent: Path | None,
    content: dict[str, bytes],
) -> Manifest:
    """What the bundle says about itself; ``files`` is filled in by :func:`write`."""
    head, dirty = provenance.commit(folder)
    embedding = msgspec.UNSET if chosen.embedding is None else chosen.embedding.size
    return Manifest(
        schema_version=manifests.SCHEMA_VERSION if chosen.embedding else manifests.PLAIN_VERSION,
        model=chosen.model,
        version=chosen.version,
        parent=folders.ref(parent) if parent else None,
        description=chosen.description,
        output=OutputContract(
            name=OUTPUT,
            classes=chosen.output.classes,
            meaning=chosen.output.meaning,
            embedding=embedding,
        ),
        features_sha256=sha256_bytes(content[manifests.FEATURES]),
        slices=chosen.slices,
        datasets=snapshot.records(
            chosen.data.name or chosen.model, chosen.data.source or folder.resolve().name
        ),
        snapshot=snapshot.data,
        provenance=Provenance(
            recipe=folder.resolve().name,
            recipe_sha256=recipe_code.digest(folder, recipe.release_file(chosen)),
            settings=dict(chosen.settings),
            code_commit=head,
            code_dirty=dirty,
            seed=chosen.seed,
            tools=provenance.tools(),
            machine=provenance.machine(),
        ),
        variants=records,
        budget=chosen.budget,
        metrics=next((record.metrics for record in records if record.metrics), {}),
        main_metric=chosen.metrics[0].rpartition(":")[2],
        gates=gates,
        waivers=waivers,
        label_delay_seconds=chosen.label_delay_seconds,
        privacy=chosen.privacy,
        input=chosen.input,
        teacher=trained.teacher,
        fine_tuning=trained.fine_tuning,
        files=entries(content),
    )


def write(folder: Path, content: dict[str, bytes], evidence: Evidence) -> Manifest:
    """Write everything, card and plots included, and the manifest over all of it."""
    content = content | plots.draw(evidence) | {manifests.CARD: card.render(evidence).encode()}
    for path, data in content.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    made = msgspec.structs.replace(evidence.manifest, files=entries(content))
    data = manifests.serialize(made)
    if manifests.parse(data) != made:
        raise InvalidBundle("the manifest does not survive writing and reading; nothing is shipped")
    (folder / manifests.MANIFEST).write_bytes(data)
    return made


def _reference(chosen: Recipe, snapshot: Snapshot, answered: Answered) -> bytes:
    definition, train = snapshot.definition, snapshot.rows["train"]
    probabilities = outputs.probabilities(answered.logits)
    projection = None
    if (declared := chosen.embedding) is not None:
        release = f"{chosen.model}@{chosen.version}"
        projection = projections.draw(release, declared.size, declared.directions)
    built = histogram.build(
        inputs={n: train.samples[:, :, i].ravel() for i, n in enumerate(definition.input_names)},
        features={n: train.features[:, i] for i, n in enumerate(definition.feature_names)},
        confidence=probabilities.max(axis=1),
        predicted=probabilities.argmax(axis=1),
        classes=len(snapshot.classes),
        embedding=answered.embedding,
        projection=projection,
    )
    return histogram.serialize(built)


def _golden(snapshot: Snapshot, shown: list[Shown]) -> bytes:
    chosen = golden_rows(snapshot)
    raw = chosen.samples if snapshot.golden_log is None else snapshot.golden_log
    logits = {one.record.target: one.golden for one in shown if one.golden is not None}
    embeddings = {one.record.target: one.embedding for one in shown if one.embedding is not None}
    return goldens.pack(goldens.Golden(raw, chosen.features, logits, embeddings))


def entries(content: dict[str, bytes]) -> list[FileEntry]:
    """Paths, sizes and digests, in order of paths."""
    return [
        FileEntry(path=path, size=len(data), sha256=sha256_bytes(data))
        for path, data in sorted(content.items())
    ]
