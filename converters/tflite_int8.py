"""Static int8 for LiteRT, calibrated with the true minimum and maximum.

The quantiser's stock calibration keeps a moving average of both, which cuts off what the last
batches did not show.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from converters.dataset import Float32

INPUT = "features"

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


def _plc(model: bytes) -> dict[str, int]:
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


def temp(floats, cal, wanted):
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import qtyping, quantizer

    i = Interpreter(
        model_content=floats.data, num_threads=1, experimental_preserve_all_tensors=True
    )
    rows = len(next(iter(cal.values())))
    for d, s in zip(i.get_input_details(), floats.inputs):
        i.resize_tensor_input(d["index"], [rows, *d["shape"][1:]])
    i.allocate_tensors()
    for d, s in zip(i.get_input_details(), floats.inputs):
        i.set_tensor(d["index"], cal[s.name])
    i.invoke()
    q = {}
    for d in i.get_tensor_details():
        if d["dtype"] == np.float32 and d["name"]:
            try:
                v = i.get_tensor(d["index"])
            except ValueError:
                continue
            q[d["name"]] = {
                k: np.array(f(v)).reshape((1,) * v.ndim)
                for k, f in (("min", np.min), ("max", np.max))
            }
    z = quantizer.Quantizer(floats.data)
    op = qtyping.TFLOperationName
    if wanted.io == "int8":
        z.add_static_config(".*", op.ALL_SUPPORTED, 8, 8)
    else:
        z.add_static_config(".*", op.FULLY_CONNECTED, 8, 8)
        z.add_static_config(".*", op.CONV_2D, 8, 8)
    return bytes(z.quantize(q).quantized_model)


def placement(model):
    from converters.targets.target import Placement

    return Placement(operators=_plc(model.data))
