"""The ends of an int8-only model: scale, quantise, dequantise, as a device does it."""

from typing import Any

import numpy as np
import numpy.typing as npt

from edge_core.bundle.manifest import InputScaling

Array = npt.NDArray[Any]


def scaled(rows: Array, scaling: InputScaling | None) -> Array:
    """``clip((x - mean) * gain, -limit, limit)`` in float32, [rows, ...]."""
    if scaling is None:
        return rows
    mean = np.array(scaling.mean, np.float32).reshape(scaling.shape)
    gain = np.array(scaling.gain, np.float32).reshape(scaling.shape)
    return np.clip((rows - mean) * gain, -scaling.limit, scaling.limit).astype(np.float32)


def quantised(rows: Array, details: dict[str, Any]) -> Array:
    """Rows as the input tensor wants them; float tensors take them as they are."""
    dtype = np.dtype(details["dtype"])
    scale, zero_point = details["quantization"]
    if dtype.kind != "i" or dtype.itemsize > 1 or not scale:
        return rows
    steps = np.rint(rows / np.float32(scale)) + zero_point
    limits = np.iinfo(dtype)
    return np.clip(steps, limits.min, limits.max).astype(dtype)


def dequantised(rows: Array, details: dict[str, Any]) -> Array:
    """The output tensor's rows as float32."""
    dtype = np.dtype(details["dtype"])
    scale, zero_point = details["quantization"]
    if dtype.kind != "i" or dtype.itemsize > 1 or not scale:
        return np.array(rows)
    return ((rows.astype(np.float32) - zero_point) * np.float32(scale)).astype(np.float32)
