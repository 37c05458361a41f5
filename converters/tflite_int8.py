"""Static int8 for LiteRT, calibrated with the true minimum and maximum.

The quantiser's stock calibration keeps a moving average of both, which cuts off what the last
batches did not show.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from converters.export import INPUT, Float32

SETTINGS: dict[str, str | bool | float] = {
    "scheme": "int8 static",
    "format": "TFLite",
    "per_channel": True,
    "calibration": "min/max",
}


def quantise(model: bytes, calibration: Float32) -> bytes:
    """Quantise float TFLite bytes with calibration rows, float32 [rows, features]."""
    from ai_edge_quantizer import calibrator, qtyping, quantizer
    from ai_edge_quantizer.utils import qsv_utils

    made = quantizer.Quantizer(model)
    made.add_static_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.FULLY_CONNECTED,
        activation_num_bits=8,
        weight_num_bits=8,
    )
    measured = calibrator.Calibrator(model, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    rows = [{INPUT: row[None]} for row in calibration]
    measured.calibrate({"serving_default": rows}, made._recipe_manager)
    return bytes(made.quantize(measured.get_model_qsvs()).quantized_model)


def run(model: bytes, features: Float32) -> Float32:
    """Run with LiteRT, float32 [rows, features] -> logits float32 [rows, classes]."""
    return runner(model)(features)


def runner(model: bytes) -> Callable[[Float32], Float32]:
    """Load once for each batch size, run often; see :func:`run`."""
    interpreters: dict[int, Any] = {}

    def answer(features: Float32) -> Float32:
        rows = len(features)
        if rows not in interpreters:
            interpreters[rows] = _interpreter(model, rows)
        interpreter = interpreters[rows]
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], features)
        interpreter.invoke()
        output = interpreter.get_output_details()[0]["index"]
        return np.array(interpreter.get_tensor(output), dtype=np.float32)

    return answer


def placement(model: bytes) -> dict[str, int]:
    """Operators by kind, and whether their tensors are int8 or float."""
    interpreter = _interpreter(model, 1)
    types = {t["index"]: np.dtype(t["dtype"]).name for t in interpreter.get_tensor_details()}
    kinds = Counter(
        f"{operator['op_name']}/{types.get(operator['inputs'][0], 'none')}"
        for operator in interpreter._get_ops_details()
        if operator["op_name"] != "DELEGATE"
    )
    return dict(sorted(kinds.items()))


def float_products(placed: dict[str, int]) -> list[str]:
    """Matrix products that were left in float."""
    return [name for name in placed if name.startswith("FULLY_CONNECTED/float")]


def _interpreter(model: bytes, rows: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=1)
    details = interpreter.get_input_details()[0]
    interpreter.resize_tensor_input(details["index"], [rows, *details["shape"][1:]])
    interpreter.allocate_tensors()
    return interpreter
