"""Static int8 for onnxruntime: QDQ, per-channel weights, one bit of headroom.

On x86 without VNNI, products of 8-bit values saturate a 16-bit sum; ``reduce_range`` keeps
weights to 7 bits, so that they cannot. Only products are quantised: scaling raw features, whose
ranges differ a thousandfold, through one int8 tensor would cost more than it saves.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from converters.dataset import Float32
from converters.export import strip

INPUT = "features"

SETTINGS: dict[str, str | bool | float] = {
    "scheme": "int8 static",
    "format": "QDQ",
    "per_channel": True,
    "reduce_range": True,
    "calibration": "min/max",
}
PRODUCTS = {"Gemm", "MatMul", "Conv"}


def quantise(model: bytes, calibration: Float32) -> bytes:
    """Quantise float ONNX bytes with calibration rows, float32 [rows, features]."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Rows(quantization.CalibrationDataReader):  # type: ignore[misc]  # untyped package
        """All calibration rows as one batch, once."""

        def __init__(self) -> None:
            self._rows: Iterator[dict[str, Float32]] = iter([dict(calibration)])

        def get_next(self) -> dict[str, Float32] | None:
            """The next batch; none at the end."""
            return next(self._rows, None)

    with tempfile.TemporaryDirectory() as folder:
        source, prepared, made = (Path(folder) / name for name in ("f", "p", "q"))
        source.write_bytes(model)
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(made),
            Rows(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=sorted(PRODUCTS),
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return strip(onnx.load(str(made)))


def run(model: bytes, features: Float32) -> Float32:
    """Run with onnxruntime, float32 [rows, features] -> logits float32 [rows, classes]."""
    return runner(model)(features)


def runner(model: bytes) -> Callable[[Float32], Float32]:
    """Load once, run often; see :func:`run`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def answer(features: Float32) -> Float32:
        logits: Float32 = session.run(None, {INPUT: features})[0]
        return logits

    return answer


def _plc(model: bytes) -> dict[str, int]:
    """Operators of the graph that onnxruntime really runs, by provider and kind."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(path)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        kinds = Counter(node.op_type for node in onnx.load(str(path)).graph.node)
    return {f"CPUExecutionProvider/{kind}": count for kind, count in sorted(kinds.items())}


def float_products(placed: dict[str, int]) -> list[str]:
    """Matrix products that were left in float."""
    return [name for name in placed if name.split("/")[1] in PRODUCTS]


def temp(floats, cal, wanted):
    return quantise(floats.data, cal)


def placement(model):
    from converters.targets.target import Placement

    return Placement(operators=_plc(model.data))
