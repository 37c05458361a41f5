"""Lets the parent release answer the same rows as the new one, so that they can be compared."""

from pathlib import Path

import numpy as np

from converters.dataset import Float32, Snapshot
from converters.host import runner
from converters.model_file import ModelFile
from converters.tensors import TensorSpec
from edge_core.bundle import folder as folders
from edge_core.bundle import manifest as manifests
from edge_core.bundle.manifest import Manifest, VariantRecord
from edge_core.errors import InvalidBundle
from edge_core.features import definition as definitions
from edge_core.features.evaluation import Evaluator

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
    own = snapshot.definition
    same = definition.window == own.window and definition.input_names == own.input_names
    variant = next((v for v in manifest.variants if v.runtime in HOST), None)
    if not same or variant is None or set(snapshot.classes) - set(manifest.output.classes):
        return None
    order = [manifest.output.classes.index(name) for name in snapshot.classes]
    found = answer(folder, manifest, variant, snapshot.rows["test"].samples)
    return None if found is None else found[:, order]


def answer(
    folder: Path, manifest: Manifest, variant: VariantRecord, samples: Float32
) -> Float32 | None:
    """Answer raw windows with a bundle's variant on this machine.

    Args:
        folder: the bundle's.
        manifest: its manifest.
        variant: one of its variants.
        samples: float32 [rows, samples, inputs].

    Returns:
        Logits, float32 [rows, classes]; none where this machine cannot run the file.
    """
    if variant.runtime not in HOST:
        return None
    definition = definitions.parse(
        folders.read_limited(folder / manifests.FEATURES, definitions.MAX_DEFINITION_BYTES)
    )
    evaluator = Evaluator(definition)
    rows = (
        evaluator.evaluate(evaluator.quantise(samples))
        if manifest.input == "features"
        else evaluator.rounded(samples)
    )
    file = model_file(folder, manifest, variant, rows.shape[1:])
    try:
        found: Float32 = runner(file)({manifest.input: rows})[manifest.output.name]
    except (ValueError, RuntimeError) as error:
        raise InvalidBundle(f"{variant.path} does not answer its rows: {error}") from error
    return found.astype(np.float32, copy=False)


def model_file(
    folder: Path, manifest: Manifest, variant: VariantRecord, shape: tuple[int, ...]
) -> ModelFile:
    """A bundle's variant as a file that the host can run."""
    data = folders.read_limited(folder / variant.path, manifests.MAX_FILE_BYTES)
    return ModelFile(
        format="onnx" if variant.runtime == "onnxruntime" else "tflite",
        data=data,
        inputs=(TensorSpec(name=manifest.input, shape=shape),),
        outputs=(TensorSpec(name=manifest.output.name, shape=(len(manifest.output.classes),)),),
        scaling=variant.scaling,
    )
