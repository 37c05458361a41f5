"""Float file in, quantised file out: picks the format's quantiser and the calibration method."""

from collections.abc import Collection
from types import ModuleType
from typing import Literal

import msgspec
import numpy as np

from converters.calibration import RANGE_METHODS, Observation, RangeMethod, Ranges
from converters.model_file import ModelFile, Scheme
from converters.refusal import StageFailed
from converters.targets import int8_io
from converters.tensors import Feeds, rows_of, take

Method = Literal["min/max", "percentile", "entropy", "auto"]

LEAST_ROWS = 32
"""Calibration rows below which ranges are guesswork."""
HELD_OUT = 4
"""Every fourth calibration row measures the methods, the others calibrate them."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """How a file shall be quantised; what targets with equal wishes share."""

    scheme: Scheme
    method: Method = "auto"
    reduce_range: bool = False
    io: Literal["float32", "int8"] = "float32"
    batch: Literal["dynamic", "one"] = "dynamic"
    keep_float: tuple[str, ...] = ()
    """Layers of the float file that stay in float."""


def quantise(floats: ModelFile, calibration: Feeds, wanted: Wanted) -> ModelFile:
    """Quantise a float file.

    Args:
        floats: the float file; where its scaling was cut off it takes scaled rows.
        calibration: unscaled rows, at least 32.
        wanted: scheme and method.

    Raises:
        StageFailed: an operator cannot be quantised; it is named.
    """
    if wanted.scheme in ("float32", "fp16", "int8 weight-only"):
        return _without_ranges(floats, wanted)
    rows = {name: int8_io.scaled(array, floats.scaling) for name, array in calibration.items()}
    errors: dict[RangeMethod, float] = {}
    if wanted.method == "auto":
        errors = method_errors(floats, rows, wanted)
        method = min(RANGE_METHODS, key=lambda name: errors[name])
    else:
        method = wanted.method
    data = _static(floats, Observation(floats, rows).ranges(method), wanted)
    settings: dict[str, str | bool | float] = {
        "scheme": wanted.scheme,
        "format": "QDQ" if floats.format == "onnx" else "TFLite",
        "per_channel": True,
        "calibration": method,
        "io": wanted.io,
    }
    if floats.format == "onnx":
        settings["reduce_range"] = wanted.reduce_range
    settings |= {f"error of {name}": round(error, 6) for name, error in errors.items()}
    return msgspec.structs.replace(
        floats,
        data=data,
        scheme="mixed" if wanted.keep_float else wanted.scheme,
        settings=settings | ({"scheme": "mixed"} if wanted.keep_float else {}),
        float_layers=origins(floats, wanted.keep_float),
    )


def method_errors(floats: ModelFile, rows: Feeds, wanted: Wanted) -> dict[RangeMethod, float]:
    """Numeric error of each calibration method on rows that did not calibrate it.

    Args:
        floats: the float file.
        rows: as the file takes them.
        wanted: everything but the method.
    """
    places = np.arange(rows_of(rows))
    measures = places % HELD_OUT == HELD_OUT - 1
    observed = Observation(floats, take(rows, places[~measures]))
    held_out = take(rows, places[measures])
    plain = msgspec.structs.replace(floats, scaling=None)  # these rows are scaled already
    return {
        method: error_of(plain, _static(floats, observed.ranges(method), wanted), held_out)
        for method in RANGE_METHODS
    }


def error_of(floats: ModelFile, data: bytes, rows: Feeds) -> float:
    """Largest numeric error of any output of a quantised file, measured on this machine."""
    from converters import host, parity

    reference = host.runner(floats)(rows)
    answered = host.runner(msgspec.structs.replace(floats, data=data))(rows)
    return max(parity.numeric_error(reference[name], answered[name]) for name in reference)


def layers(floats: ModelFile) -> list[str]:
    """Layers with weights, in the order of the graph."""
    found: list[str] = _tool(floats).layers(floats)
    return found


def origins(floats: ModelFile, names: Collection[str]) -> tuple[str, ...]:
    """Layers by the module that they came from, where it is known."""
    return tuple(floats.origins.get(name) or name for name in names)


def _static(floats: ModelFile, ranges: Ranges, wanted: Wanted) -> bytes:
    from converters import onnx_int8, tflite_int8

    if floats.format == "tflite":
        return tflite_int8.static(
            floats, ranges, whole=wanted.io == "int8", keep_float=wanted.keep_float
        )
    if wanted.io == "int8":
        raise StageFailed("int8 inputs and outputs need a TFLite file; this target takes ONNX")
    return onnx_int8.static(
        floats, ranges, reduce_range=wanted.reduce_range, keep_float=wanted.keep_float
    )


def _without_ranges(floats: ModelFile, wanted: Wanted) -> ModelFile:
    tool = _tool(floats)
    settings: dict[str, str | bool | float] = {"scheme": wanted.scheme}
    data = floats.data
    if wanted.scheme == "fp16":
        data = tool.half(floats)
    elif wanted.scheme == "int8 weight-only":
        data = tool.weight_only(floats, wanted.keep_float)
        settings["per_channel"] = True
    return msgspec.structs.replace(
        floats,
        data=data,
        scheme=wanted.scheme,
        settings=settings,
        float_layers=origins(floats, wanted.keep_float),
    )


def _tool(floats: ModelFile) -> ModuleType:
    from converters import onnx_int8, tflite_int8

    return onnx_int8 if floats.format == "onnx" else tflite_int8
