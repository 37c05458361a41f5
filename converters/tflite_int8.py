"""Static int8 for TFLite: per-channel weights, ranges from :mod:`converters.calibration`.

The quantiser's stock calibration keeps a moving average of minimum and maximum, which cuts off
what the last rows did not show; it is given our ranges instead.

With float32 inputs and outputs, what stands before the first product or after the last stays in
float. With int8 ones, every operator is int8, or the file is refused.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

import numpy as np

from converters import graph, tflite_graph
from converters.calibration import Range
from converters.model_file import ModelFile
from converters.refusal import StageFailed

FLOATS = ("FLOAT32", "FLOAT16")
CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")


def quantise(
    floats: ModelFile,
    ranges: Mapping[str, Range],
    products: Collection[str],
    *,
    io: Literal["float32", "int8"] = "float32",
) -> bytes:
    """Quantise some products of a float file and what carries int8 between them.

    Args:
        floats: the float file.
        ranges: of every computed float tensor.
        products: names of the operators to quantise; ``int8`` quantises all.
        io: type of inputs and outputs.

    Raises:
        StageFailed: there is nothing to quantise; or, for int8, an operator has no int8 form.
    """
    steps = tflite_graph.steps(floats.data)
    everything = [step.name for step in steps]
    chosen = everything
    if io == "float32":
        chosen = graph.between_products(steps, tflite_graph.KINDS, products)
    if not chosen:
        raise StageFailed("the TFLite graph has no product that int8 could serve; use float32")
    made = _quantizer(floats.data, steps, set(everything) - set(chosen), io)
    data = bytes(made.quantize(_statistics(ranges), enable_progress_report=False).quantized_model)
    if io == "int8":
        _refuse_float(data, floats)
    return data


def weight_only(floats: ModelFile, kept: Collection[str]) -> bytes:
    """Store weights in int8, per channel; computation stays in float."""
    from ai_edge_quantizer import qtyping, quantizer

    made = quantizer.Quantizer(floats.data)
    made.add_weight_only_config(".*", qtyping.TFLOperationName.ALL_SUPPORTED, num_bits=8)
    leave(made, tflite_graph.steps(floats.data), set(kept))
    return bytes(made.quantize(enable_progress_report=False).quantized_model)


def float_weights(data: bytes) -> set[str]:
    """Names of the operators whose weights are float32 in a file."""
    return {step.name for step in tflite_graph.steps(data) if step.weights}


def _quantizer(
    data: bytes, steps: Iterable[graph.Step], left: set[str], io: Literal["float32", "int8"]
) -> Any:
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer

    made = quantizer.Quantizer(data)
    made.add_static_config(
        ".*",
        qtyping.TFLOperationName.ALL_SUPPORTED,
        activation_num_bits=8,
        weight_num_bits=8,
    )
    # Tables have no static form: their rows are looked up in int8 and turned to float32.
    made.add_dynamic_config(".*", qtyping.TFLOperationName.EMBEDDING_LOOKUP, num_bits=8)
    if io == "float32":
        for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            made.update_quantization_recipe(
                ".*", end, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE
            )
    leave(made, steps, left)
    return made


def leave(made: Any, steps: Iterable[graph.Step], left: set[str]) -> None:
    """Have the quantiser leave operators as they are, by the names of their outputs."""
    from ai_edge_quantizer import algorithm_manager, qtyping

    scopes = [re.escape("".join(f"{n};" for n in s.outputs)) for s in steps if s.name in left]
    if scopes:
        made.update_quantization_recipe(
            f"^(?:{'|'.join(scopes)})$",
            qtyping.TFLOperationName.ALL_SUPPORTED,
            algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE,
        )


def _statistics(ranges: Mapping[str, Range]) -> dict[str, dict[str, Any]]:
    return {
        name: {"min": np.full((1, 1), low, np.float32), "max": np.full((1, 1), high, np.float32)}
        for name, (low, high) in ranges.items()
    }


def _refuse_float(data: bytes, floats: ModelFile) -> None:
    floating = [
        operator
        for operator in tflite_graph.operators(data)
        if any(tensor.dtype in FLOATS for tensor in (*operator.inputs, *operator.outputs))
    ]
    # What turns int8 to float and back stands around the operator that asked for it.
    for operator in sorted(floating, key=lambda found: found.kind in CONVERSIONS):
        path = floats.origins.get(operator.name) or operator.name
        raise StageFailed(
            f"operator {operator.kind} of {path} has no int8 form, and the target takes no "
            "float; replace it in the model, or build for a target that takes float32"
        )
