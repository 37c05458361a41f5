"""Int8 for LiteRT and TensorFlow Lite Micro, by the AI Edge Quantizer.

The quantiser's own calibration keeps a moving average of minimum and maximum, which cuts off what
the last batches did not show; it gets ranges from ``converters.calibration`` instead.
"""

import re
from collections.abc import Collection
from typing import Any

import numpy as np

from converters import tflite_layers
from converters.calibration import Ranges
from converters.model_file import ModelFile
from converters.refusal import StageFailed

BITS = 8


def static(floats: ModelFile, ranges: Ranges, *, whole: bool, keep_float: Collection[str]) -> bytes:
    """Weights and activations in int8.

    Args:
        floats: the float file.
        ranges: of its tensors.
        whole: everything in int8, inputs and outputs included; otherwise what stands in front of
            the first product stays in float: it scales raw values whose ranges differ too much.
        keep_float: layers, by the name of their output, that stay in float.

    Raises:
        StageFailed: an operator has no int8 kernel.
    """
    from ai_edge_quantizer import qtyping

    found = tflite_layers.steps(floats.data)
    chosen = found if whole else tflite_layers.after_products(found)
    names = [step.name for step in chosen if step.name not in keep_float]
    made = _quantizer(floats)
    operation = qtyping.TFLOperationName
    if not names:
        return floats.data
    made.add_static_config(
        _exactly(names), operation.ALL_SUPPORTED, activation_num_bits=BITS, weight_num_bits=BITS
    )
    for end in (operation.INPUT, operation.OUTPUT):
        if whole:
            made.add_static_config(".*", end, activation_num_bits=BITS, weight_num_bits=BITS)
        else:
            made.update_quantization_recipe(".*", end, algorithm_key="no_quantize")
    return _finished(made, floats, _moving(floats, ranges))


def weight_only(floats: ModelFile, keep_float: Collection[str]) -> bytes:
    """Weights in int8; the runtime multiplies in float."""
    return _weights(floats, keep_float, bits=BITS, algorithm="min_max_uniform_quantize")


def half(floats: ModelFile) -> bytes:
    """Weights in float16; GPU delegates compute with them."""
    return _weights(floats, (), bits=16, algorithm="float_casting")


def layers(floats: ModelFile) -> list[str]:
    """Layers with weights, by the name of their output, in the order of the graph."""
    return [step.name for step in tflite_layers.steps(floats.data) if step.weighted]


def _quantizer(floats: ModelFile) -> Any:
    from ai_edge_quantizer import quantizer

    return quantizer.Quantizer(floats.data)


def _weights(floats: ModelFile, keep_float: Collection[str], *, bits: int, algorithm: str) -> bytes:
    from ai_edge_quantizer import qtyping

    names = [name for name in layers(floats) if name not in keep_float]
    if not names:
        return floats.data
    made = _quantizer(floats)
    made.add_weight_only_config(
        _exactly(names),
        qtyping.TFLOperationName.ALL_SUPPORTED,
        num_bits=bits,
        algorithm_key=algorithm,
    )
    return _finished(made, floats, {})


def _finished(made: Any, floats: ModelFile, ranges: dict[str, dict[str, Any]]) -> bytes:
    try:
        return bytes(made.quantize(ranges).quantized_model)
    except (ValueError, KeyError, RuntimeError) as error:
        told = " ".join(str(error).split())[:200]
        origin = next((o for name, o in floats.origins.items() if name and name in told), "")
        where = f" (module {origin})" if origin else ""
        raise StageFailed(f"TFLite int8: {told}{where}") from error


def _exactly(names: Collection[str]) -> str:
    """A pattern that matches these outputs; the quantiser joins names with semicolons."""
    return "^(" + "|".join(re.escape(name) for name in names) + ");"


def _moving(floats: ModelFile, ranges: Ranges) -> dict[str, dict[str, Any]]:
    """Ranges as the quantiser takes them; those of weights it finds by channel itself."""
    found = {}
    for name, rank in tflite_layers.moving_ranks(floats.data).items():
        if name in ranges:
            low, high = (np.full((1,) * rank, value, np.float32) for value in ranges[name])
            found[name] = {"min": low, "max": high}
    return found
