"""A small, complete and true bundle, made in well under a second and without torch.

Two inputs, windows of 8 samples, four features and three classes; the model is one Gemm whose
weights are written by hand, and every other file is made from what the model really answers.
"""

import hashlib
import io
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from edge_core import baseline, outputs
from edge_core.bundle import manifest as manifests
from edge_core.bundle.manifest import (
    Budget,
    DatasetRecord,
    DataSnapshot,
    EmbeddingRecord,
    FileEntry,
    GateResult,
    Manifest,
    OutputContract,
    Privacy,
    Provenance,
    VariantRecord,
)
from edge_core.features import definition as definitions
from edge_core.features.evaluation import Evaluator
from edge_core.features.over_samples import Mean, Std
from edge_core.features.sensors import SensorInput, Window
from edge_core.features.window_definition import WindowDefinition
from edge_core.stats import histogram
from edge_core.stats import projection as projections
from edge_core.stats.projection import Projection

TARGET = "cpu-x86_64-ort"
DIRECTIONS = 8
CLASSES = ["still", "shake", "tilt"]
DEFINITION = WindowDefinition(
    inputs=[
        SensorInput(name="ax", unit="g", lsb=2**-10, low=-8.0, high=8.0),
        SensorInput(name="ay", unit="g", lsb=2**-10, low=-8.0, high=8.0),
    ],
    window=Window(samples=8, hop=4, max_gap_ms=100, rate_hz=50.0),
    features=[
        Mean(name="ax_mean", input="ax"),
        Std(name="ax_std", input="ax"),
        Mean(name="ay_mean", input="ay"),
        Std(name="ay_std", input="ay"),
    ],
)
# Columns are classes: little of everything, much spread on ax, a mean on ay.
WEIGHTS = np.array([[0, 0, 0], [-4, 4, 0], [-2, -2, 4], [-1, 0, 0]], np.float32)
BIAS = np.array([2.0, -2.0, -2.0], np.float32)

Float32 = npt.NDArray[np.float32]


def tiny_rows(rows: int, seed: int = 0) -> tuple[Float32, npt.NDArray[np.int64]]:
    """Raw windows float32 [rows, 8, 2] and true class numbers int64 [rows]."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % len(CLASSES)
    samples = rng.normal(0, 0.05, (rows, DEFINITION.window.samples, 2))
    samples[labels == 1, :, 0] += rng.normal(0, 1.5, samples[labels == 1, :, 0].shape)
    samples[labels == 2, :, 1] += 1.5
    return samples.astype(np.float32), labels


def tiny_bundle(
    folder: Path,
    *,
    version: str = "1.0.0",
    seed: int = 0,
    sign_with: Path | None = None,
    model: str = "tiny-motion",
    definition: WindowDefinition = DEFINITION,
    golden: bytes | None = None,
    privacy: Privacy | None = None,
    bias: Float32 = BIAS,
    coordinates: int = 0,
) -> Path:
    """Write the bundle into ``folder``, signed when a statement key is given, and return it.

    Another seed gives slightly other weights and rows, so another digest. ``golden`` replaces
    the golden vectors by other bytes, signed like the true ones. ``bias`` of one class high above
    the others makes a true bundle of a useless model. ``coordinates`` above 0 give it an embedding
    of so many.
    """
    rng = np.random.default_rng(seed)
    weights = (WEIGHTS + rng.normal(0, 0.02, WEIGHTS.shape)).astype(np.float32)
    seen_from = rng.normal(0, 1, (len(weights), coordinates)).astype(np.float32)
    onnx_bytes = one_gemm(weights, bias, seen_from if coordinates else None)
    files = {f"variants/{TARGET}/model.onnx": onnx_bytes}
    release = f"{model}@{version}"
    projection = projections.draw(release, coordinates, DIRECTIONS) if coordinates else None
    files |= _evidence(weights, seed, onnx_bytes, projection)
    files[manifests.FEATURES] = definitions.serialize(definition)
    if golden is not None:
        files[manifests.GOLDEN] = golden
    description = "Tells still, shaken and tilted apart."
    about = (CLASSES, description, privacy, coordinates)
    return write(folder, files, model, version, seed, sign_with, *about)


def write(
    folder: Path,
    files: dict[str, bytes],
    model: str,
    version: str,
    seed: int,
    sign_with: Path | None,
    classes: list[str],
    description: str,
    privacy: Privacy | None = None,
    coordinates: int = 0,
) -> Path:
    """Write a bundle's files and their manifest, signed when a statement key is given."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    manifest = _manifest(model, version, seed, files, classes, description, privacy)
    if coordinates:
        manifest = _with_embedding(manifest, coordinates)
    (folder / manifests.MANIFEST).write_bytes(manifests.serialize(manifest))
    if sign_with is not None:
        from converters.signing import sign_folder

        sign_folder(folder, sign_with)
    return folder


def _with_embedding(manifest: Manifest, coordinates: int) -> Manifest:
    shown = EmbeddingRecord(numeric_error=0.0, tolerance=1e-4)
    return msgspec.structs.replace(
        manifest,
        schema_version=manifests.SCHEMA_VERSION,
        output=msgspec.structs.replace(manifest.output, embedding=coordinates),
        variants=[msgspec.structs.replace(v, embedding=shown) for v in manifest.variants],
    )


def _evidence(
    weights: Float32, seed: int, onnx_bytes: bytes, projection: Projection | None
) -> dict[str, bytes]:
    """Every file that belongs to the model: features, reference, golden rows, fallback, card."""
    samples, _ = tiny_rows(120, seed)
    evaluator = Evaluator(DEFINITION)
    features = evaluator.evaluate(evaluator.quantise(samples))
    logits = run(onnx_bytes, features)
    embedding = run(onnx_bytes, features, "embedding") if projection is not None else None
    scores = outputs.probabilities(logits)
    reference = histogram.build(
        inputs={n: samples[:, :, i].ravel() for i, n in enumerate(DEFINITION.input_names)},
        features={n: features[:, i] for i, n in enumerate(DEFINITION.feature_names)},
        confidence=scores.max(axis=1),
        predicted=scores.argmax(axis=1),
        classes=len(CLASSES),
        embedding=embedding,
        projection=projection,
    )
    golden = io.BytesIO()
    arrays = {"samples": samples[:12], "features": features[:12], f"expected.{TARGET}": logits[:12]}
    if embedding is not None:
        arrays[f"embedding.{TARGET}"] = embedding[:12]
    np.savez(golden, **arrays)
    simple = baseline.LogisticBaseline(
        features=DEFINITION.feature_names,
        mean=[0.0] * 4,
        scale=[1.0] * 4,
        weights=(weights / 2).astype(float).tolist(),
        bias=(BIAS / 2).astype(float).tolist(),
    )
    return {
        manifests.FEATURES: definitions.serialize(DEFINITION),
        manifests.REFERENCE: histogram.serialize(reference),
        manifests.GOLDEN: golden.getvalue(),
        manifests.FALLBACK: baseline.serialize(simple),
        manifests.CARD: b"# tiny-motion\n\nTells still, shaken and tilted apart.\n",
    }


def one_gemm(weights: Float32, bias: Float32, seen_from: Float32 | None = None) -> bytes:
    """One Gemm from ``features`` float32 [batch, rows] to ``logits`` float32 [batch, columns].

    Where ``seen_from`` is given, it makes an ``embedding`` of them, and that output comes first:
    who reads outputs by their place is found out.
    """
    from onnx import TensorProto, helper, numpy_helper

    def value(name: str, columns: int) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", columns])

    nodes = [helper.make_node("Gemm", ["features", "weights", "bias"], ["logits"])]
    answers = [value("logits", weights.shape[1])]
    held = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")]
    if seen_from is not None:
        nodes.append(helper.make_node("Gemm", ["features", "seen_from"], ["embedding"]))
        answers.insert(0, value("embedding", seen_from.shape[1]))
        held.append(numpy_helper.from_array(seen_from, "seen_from"))
    graph = helper.make_graph(nodes, "tiny", [value("features", len(weights))], answers, held)
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def run(onnx_bytes: bytes, features: Float32, output: str = "logits") -> Float32:
    """One output of a model's bytes, its logits for one."""
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_bytes, providers=["CPUExecutionProvider"])
    found: Float32 = session.run([output], {"features": features})[0]
    return found


def _manifest(
    model: str,
    version: str,
    seed: int,
    files: dict[str, bytes],
    classes: list[str],
    description: str,
    privacy: Privacy | None,
) -> Manifest:
    entries = [
        FileEntry(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        for path, data in sorted(files.items())
    ]
    variant = VariantRecord(
        target=TARGET,
        runtime="onnxruntime",
        path=f"variants/{TARGET}/model.onnx",
        quantization={"scheme": "none"},
        placement={"CPUExecutionProvider/float32": 1},
        numeric_error=0.0,
        top1_agreement=1.0,
        tolerance=1e-4,
        latency_us={"1": 20.0},
        measured_on="the machine that runs the tests",
        ran_on_hardware=True,
        size_ratio=1.0,
    )
    return Manifest(
        model=model,
        version=version,
        description=description,
        output=OutputContract(name="logits", classes=classes, meaning="kind of motion"),
        features_sha256=hashlib.sha256(files[manifests.FEATURES]).hexdigest(),
        slices={"side": ["left", "right"]},
        datasets=[
            DatasetRecord(
                role="golden",
                name="tiny",
                source="drawn from a seeded generator",
                sha256=hashlib.sha256(files[manifests.GOLDEN]).hexdigest(),
                rows=12,
                entities=["generator"],
            )
        ],
        snapshot=DataSnapshot(
            id=hashlib.sha256(b"tiny").hexdigest(),
            name="tiny",
            source="drawn from a seeded generator",
            schema_sha256=hashlib.sha256(b"schema").hexdigest(),
            rows={"recordings": 12},
        ),
        provenance=Provenance(
            recipe="tiny",
            recipe_sha256=hashlib.sha256(b"tiny").hexdigest(),
            settings={},
            code_commit=None,
            code_dirty=None,
            seed=seed,
            tools={"numpy": np.__version__},
            machine="x86_64",
        ),
        variants=[variant],
        budget=Budget(latency_us=5000.0, memory_bytes=64 * 1024 * 1024, size_bytes=1024 * 1024),
        metrics={"accuracy": 1.0, "accuracy/side=left": 1.0, "accuracy/side=right": 1.0},
        privacy=privacy,
        gates=[GateResult(gate="numeric_error", outcome="passed", target=TARGET, value=0.0)],
        files=entries,
    )
