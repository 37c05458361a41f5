"""Lets the parent release answer the same rows as the new one, so that they can be compared."""

from pathlib import Path

import numpy as np

from converters.data.dataset import Float32, Snapshot
from converters.host import runner
from converters.model_file import ModelFile
from converters.tensors import TensorSpec
from edge_core.bundle import folder as folders
from edge_core.bundle import golden
from edge_core.bundle import manifest as manifests
from edge_core.bundle.manifest import Manifest, VariantRecord
from edge_core.errors import InvalidBundle, InvalidInput
from edge_core.features import definition as definitions
from edge_core.features.definition import FeatureDefinition, of_windows
from edge_core.features.evaluation import Evaluator
from edge_core.features.logs import Log
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.window_definition import WindowDefinition
from edge_core.stats.projection import EMBEDDING

HOST = {"onnxruntime": "onnx", "litert": "tflite", "tflite-micro": "tflite"}
"""Runtimes whose files this machine can run, and their format."""


def logits(folder: Path, snapshot: Snapshot) -> Float32 | None:
    """What the parent answers to the test rows.

    Returns:
        float32 [rows, classes] in the order of the snapshot's classes; none where the parent
        takes other inputs or windows, lacks a class, or has no variant that runs here.

    Raises:
        InvalidBundle: the parent's files are not what its manifest says.
    """
    manifest = folders.read(folder)
    folders.check(folder, manifest)
    definition = definitions.parse(
        folders.read_limited(folder / manifests.FEATURES, definitions.MAX_DEFINITION_BYTES)
    )
    rows = _test_rows(manifest, definition, snapshot)
    variant = next((v for v in manifest.variants if v.runtime in HOST), None)
    if rows is None or variant is None or set(snapshot.classes) - set(manifest.output.classes):
        return None
    order = [manifest.output.classes.index(name) for name in snapshot.classes]
    return run(folder, manifest, variant, rows)[manifest.output.name][:, order]


def _test_rows(
    manifest: Manifest, definition: FeatureDefinition, snapshot: Snapshot
) -> Float32 | None:
    """The test rows as the parent takes them; none where it takes other raw values."""
    own, test = snapshot.definition, snapshot.rows["test"]
    if isinstance(definition, WindowDefinition) and isinstance(own, WindowDefinition):
        same = definition.window == own.window and definition.input_names == own.input_names
        return _model_rows(manifest, definition, test.samples) if same else None
    if isinstance(definition, RequestDefinition) and snapshot.log is not None:
        try:
            return golden.features(definition, snapshot.log)[test.places]
        except InvalidInput:
            return None
    return None


def answer(
    folder: Path, manifest: Manifest, variant: VariantRecord, raw: Float32 | Log
) -> Float32 | None:
    """As :func:`answers`, the logits alone: float32 [rows, classes]."""
    found = answers(folder, manifest, variant, raw)
    return None if found is None else found[manifest.output.name]


def answers(
    folder: Path, manifest: Manifest, variant: VariantRecord, raw: Float32 | Log
) -> dict[str, Float32] | None:
    """Answer raw values with a bundle's variant on this machine.

    Args:
        folder: the bundle's.
        manifest: its manifest.
        variant: one of its variants.
        raw: sensor windows, float32 [rows, samples, inputs]; or a log from its beginning.

    Returns:
        By output, float32 [rows, columns]; none where this machine cannot run the file.
    """
    if variant.runtime not in HOST:
        return None
    definition = definitions.parse(
        folders.read_limited(folder / manifests.FEATURES, definitions.MAX_DEFINITION_BYTES)
    )
    return run(folder, manifest, variant, _model_rows(manifest, definition, raw))


def _model_rows(manifest: Manifest, definition: FeatureDefinition, raw: Float32 | Log) -> Float32:
    """Raw values as a model takes them."""
    if manifest.input == "features" or isinstance(raw, Log):
        return golden.features(definition, raw)
    return Evaluator(of_windows(definition)).rounded(raw)


def run(
    folder: Path, manifest: Manifest, variant: VariantRecord, rows: Float32
) -> dict[str, Float32]:
    """As :func:`answers`, of a variant that runs here, to rows as its model takes them."""
    file = model_file(folder, manifest, variant, rows.shape[1:])
    try:
        found = runner(file)({manifest.input: rows})
    except (ValueError, RuntimeError) as error:
        raise InvalidBundle(f"{variant.path} does not answer its rows: {error}") from error
    return {name: answered.astype(np.float32, copy=False) for name, answered in found.items()}


def model_file(
    folder: Path, manifest: Manifest, variant: VariantRecord, shape: tuple[int, ...]
) -> ModelFile:
    """A bundle's variant as a file that the host can run."""
    data = folders.read_limited(folder / variant.path, manifests.MAX_FILE_BYTES)
    outputs = [TensorSpec(name=manifest.output.name, shape=(len(manifest.output.classes),))]
    if manifest.output.coordinates:
        outputs.append(TensorSpec(name=EMBEDDING, shape=(manifest.output.coordinates,)))
    return ModelFile(
        format="onnx" if variant.runtime == "onnxruntime" else "tflite",
        data=data,
        inputs=(TensorSpec(name=manifest.input, shape=shape),),
        outputs=tuple(outputs),
        scaling=variant.scaling,
    )
