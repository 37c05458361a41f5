"""A build with all kinds of variants, as the converter would describe it."""

import msgspec
import numpy as np

from converters.evidence import WHOLE, Confusion, Evidence
from edge_core.bundle.manifest import (
    Budget,
    DatasetRecord,
    FileEntry,
    GateResult,
    Manifest,
    OutputContract,
    Provenance,
    Teacher,
    VariantRecord,
    Waiver,
)
from edge_core.release import ReleaseRef

CLASSES = ["PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"]
LAYERS = {
    "body.conv1": 0.0041,
    "body.conv2": 0.0127,
    "body.block.depthwise": 0.0334,
    "body.block.pointwise": 0.0078,
    "body.conv3": 0.0029,
    "body.hidden": 0.0102,
    "body.logits": 0.0019,
}
METRICS = {
    "accuracy": 0.842,
    "accuracy/hand=left": 0.854,
    "accuracy/hand=right": 0.829,
    "accuracy/hand=both": 0.75,
    "macro_f1": 0.835,
}


def _metrics(shift: float) -> dict[str, float]:
    return {name: round(value + shift, 4) for name, value in METRICS.items()}


def _variant(target: str, runtime: str, file: str, **fields: object) -> VariantRecord:
    known: dict[str, object] = {
        "target": target,
        "runtime": runtime,
        "path": f"variants/{target}/{file}",
        "quantization": {
            "scheme": "int8 static",
            "calibration": "percentile",
            "per_channel": True,
        },
        "placement": {"CPU/FULLY_CONNECTED": 2},
        "numeric_error": 0.0101,
        "top1_agreement": 0.9825,
        "tolerance": 0.42,
        "latency_us": {},
        "measured_on": "",
        "ran_on_hardware": False,
        "metrics": _metrics(0.0),
        "size_ratio": 0.29,
    }
    return msgspec.convert(known | fields, VariantRecord)


def _npu(target: str, latency: float, shift: float) -> VariantRecord:
    return _variant(
        target,
        "ethos-u",
        "model.tflite",
        placement={"NPU/CONV_2D": 3, "NPU/FULLY_CONNECTED": 2},
        measured_on="LiteRT 2.2.1, the file before compilation, on x86_64",
        estimate={
            "cycles": latency * 500,
            "sram_bytes": 14336,
            "latency_us": latency,
            "inferences_per_second": round(1e6 / latency, 1),
        },
        estimated_by="vela 5.2.0",
        compiled_by="vela 5.2.0",
        metrics=_metrics(shift),
    )


def variants() -> list[VariantRecord]:
    """Measured, emulated, estimated, half placed and never run."""
    return [
        _variant(
            "cpu-x86_64-ort",
            "onnxruntime",
            "model.onnx",
            latency_us={"1": 10.2, "16": 12.1, "64": 17.4},
            measured_on="onnxruntime 1.32.0 on x86_64",
            ran_on_hardware=True,
            placement={"CPUExecutionProvider/QGemm": 2, "CPUExecutionProvider/QLinearConv": 3},
            layer_errors=LAYERS,
        ),
        _variant(
            "cpu-aarch64-ort",
            "onnxruntime",
            "model.onnx",
            measured_on="onnxruntime 1.32.0 under qemu 7.2 (neoverse-n1)",
            layer_errors=LAYERS,
        ),
        _variant(
            "cpu-x86_64-tflite",
            "litert",
            "model.tflite",
            latency_us={"1": 9.7, "16": 10.7},
            measured_on="LiteRT 2.2.1 on x86_64",
            ran_on_hardware=True,
            metrics=_metrics(-0.0058),
            size_ratio=0.27,
            quantization={"scheme": "mixed", "calibration": "min/max"},
            float_layers=["body.block.depthwise"],
            layer_errors={name: error * 0.8 for name, error in LAYERS.items()},
        ),
        _variant(
            "cpu-aarch64-tflite",
            "litert",
            "model.tflite",
            measured_on="LiteRT 2.2.1 under qemu 7.2 (neoverse-n1)",
            metrics=_metrics(-0.0058),
            size_ratio=0.27,
        ),
        _variant(
            "mcu-tflm",
            "tflite-micro",
            "model.tflite",
            measured_on="tflite-micro 0.1 on x86_64",
            estimate={"arena_bytes": 11264},
            estimated_by="tflite-micro 0.1",
            metrics=_metrics(-0.0117),
            size_ratio=0.25,
        ),
        _npu("npu-ethos-u55-128", 212.0, -0.0117),
        _npu("npu-ethos-u65-256", 118.0, -0.0117),
        _npu("npu-ethos-u85-256", 96.0, -0.0117),
        _variant(
            "gpu-webgpu-ort",
            "onnxruntime",
            "model.onnx",
            measured_on="onnxruntime 1.32.0 on a software Vulkan driver",
            quantization={"scheme": "fp16"},
            numeric_error=0.0004,
            top1_agreement=1.0,
            metrics=_metrics(0.0058),
            placement={"WebGpu/Gemm": 2, "CPU/Clip": 1},
            misplaced=["Clip_3 runs on the CPU"],
            size_ratio=0.52,
        ),
        _variant(
            "npu-qnn-v75",
            "qnn",
            "model.bin",
            numeric_error=None,
            top1_agreement=None,
            metrics={},
            placement={"HTP/Conv2d": 3},
            compiled_by="onnxruntime-qnn 1.24",
            size_ratio=0.31,
        ),
    ]


GATES = [
    GateResult(
        gate="numeric_error",
        outcome="passed",
        target="cpu-x86_64-ort",
        value=0.0101,
        threshold=0.05,
        rows=171,
    ),
    GateResult(
        gate="metric_drop",
        outcome="passed",
        target="cpu-x86_64-ort",
        slice="hand=left",
        value=-0.01,
        threshold=0.02,
        rows=89,
    ),
    GateResult(
        gate="metric_drop",
        outcome="no_evidence",
        target="cpu-x86_64-ort",
        slice="hand=both",
        threshold=0.02,
        rows=4,
        waived=True,
        detail="needs 30 test rows",
    ),
    GateResult(
        gate="misplaced",
        outcome="failed",
        target="gpu-webgpu-ort",
        value=1.0,
        threshold=0.0,
        waived=True,
    ),
    GateResult(gate="size_bytes", outcome="passed", value=8816.0, threshold=262144.0),
]
WAIVERS = [
    Waiver(gate="metric_drop", slice="hand=both", reason="watch on both arms is a rare study"),
    Waiver(gate="misplaced", reason="one clamp on the CPU costs less than 2 us"),
]


def _dataset(role: str, rows: int) -> DatasetRecord:
    known = {
        "role": role,
        "name": "watch-activity",
        "source": "watch_activity",
        "sha256": (role * 64).encode().hex()[:64],
        "rows": rows,
        "entities": [f"subject {i} {role}" for i in range(1, 6)],
    }
    return msgspec.convert(known, DatasetRecord)


def manifest() -> Manifest:
    """A release that passed with two waivers."""
    made = variants()
    sizes = {variant.path: int(29800 * variant.size_ratio) for variant in made}
    return Manifest(
        model="watch-activity",
        version="1.3.0",
        parent=ReleaseRef(model="watch-activity", version="1.2.0", digest="a1" * 32),
        description="Recognises seven shoulder exercises from four seconds of wrist motion.",
        output=OutputContract(
            name="logits", classes=CLASSES, meaning="exercise: pendulum, abduction and five more"
        ),
        features_sha256="c0" * 32,
        slices={"hand": ["left", "right", "both"]},
        datasets=[
            _dataset("train", 587),
            _dataset("calibration", 138),
            _dataset("test", 175),
            _dataset("golden", 44),
        ],
        provenance=Provenance(
            recipe="watch_activity",
            recipe_sha256="d7" * 32,
            settings={"hidden": 64, "epochs": 25, "sides": ["left", "right"]},
            code_commit="8f3daad836d054dd0efed704511ead2d8c3d89f1",
            code_dirty=True,
            seed=7,
            tools={"onnxruntime": "1.32.0", "python": "3.11.7", "torch": "2.13.0"},
            machine="x86_64 Linux",
        ),
        variants=made,
        budget=Budget(latency_us=20000.0, memory_bytes=83886080, size_bytes=262144),
        metrics=dict(METRICS),
        gates=GATES,
        waivers=WAIVERS,
        teacher=Teacher(
            name="watch-activity@1.2.0",
            digest="a1" * 32,
            temperature=3.0,
            hard_weight=0.3,
            metrics={"accuracy": 0.871},
        ),
        files=[
            FileEntry(path=path, size=size, sha256="e5" * 32)
            for path, size in sorted(sizes.items())
        ],
    )


def confusion(rows: int, right: float, seed: int) -> Confusion:
    """Counts [classes, classes] of about ``rows`` rows."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, len(CLASSES), rows)
    answered = np.where(
        generator.random(rows) < right, truth, generator.integers(0, len(CLASSES), rows)
    )
    counts = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    np.add.at(counts, (truth, answered), 1)
    return counts


def evidence() -> Evidence:
    """What the build showed."""
    left, right, both = confusion(89, 0.85, 1), confusion(82, 0.8, 2), confusion(4, 0.8, 3)
    return Evidence(
        manifest=manifest(),
        floating=_metrics(0.0058),
        fallback={
            "accuracy": 0.667,
            "accuracy/hand=left": 0.674,
            "accuracy/hand=right": 0.659,
            "macro_f1": 0.641,
        },
        confusion={
            WHOLE: left + right + both,
            "hand=left": left,
            "hand=right": right,
            "hand=both": both,
        },
    )
