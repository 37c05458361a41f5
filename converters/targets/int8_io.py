"""The ends of an int8-only model: scale, quantise, dequantise, as a device does it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from converters.model_file import ModelFile
from converters.targets import file_ends
from converters.tensors import Array, Feeds
from edge_core.bundle.manifest import InputScaling


class Ends:
    """What a file takes and answers, beside what people feed and read. Reads the file once."""

    def __init__(self, model: ModelFile) -> None:
        """Find the file's tensors.

        Raises:
            InvalidInput: the bytes are damaged.
            StageFailed: the file's inputs or outputs are not those that it is described with.
        """
        self._scaling = model.scaling
        found = file_ends.inputs(model)
        order = sorted(range(len(found)), key=lambda at: found[at].place)
        self._inputs = [(model.inputs[at].name, found[at].details) for at in order]
        named = zip(model.outputs, file_ends.outputs(model), strict=True)
        self._outputs = [(spec.name, end.place, end.details) for spec, end in named]

    def given(self, feeds: Feeds) -> list[Array]:
        """Unscaled rows by input name -> arrays as the file takes them, in its own order."""
        return [
            quantised(scaled(feeds[name], self._scaling), details) for name, details in self._inputs
        ]

    def answered(self, arrays: Sequence[Array]) -> dict[str, Array]:
        """Arrays in the file's own order -> float32 [rows, ...] by output name."""
        return {
            name: dequantised(arrays[place], details).astype(np.float32, copy=False)
            for name, place, details in self._outputs
        }


def scaled(rows: Array, scaling: InputScaling | None) -> Array:
    """``clip((x - mean) * gain, -limit, limit)`` in float32, [rows, ...]."""
    if scaling is None:
        return rows
    mean = np.array(scaling.mean, np.float32).reshape(scaling.shape)
    gain = np.array(scaling.gain, np.float32).reshape(scaling.shape)
    limit = np.float32(scaling.limit)
    made: Array = np.clip((rows.astype(np.float32) - mean) * gain, -limit, limit)
    return made


def quantised(rows: Array, details: Mapping[str, Any]) -> Array:
    """Rows as the input tensor wants them; float tensors take them as they are."""
    dtype = np.dtype(details["dtype"])
    scale, zero_point = details["quantization"]
    if not _in_steps(dtype, scale):
        return rows
    steps = np.rint(rows / np.float32(scale)) + zero_point
    limits = np.iinfo(dtype)
    made: Array = np.clip(steps, limits.min, limits.max).astype(dtype)
    return made


def dequantised(rows: Array, details: Mapping[str, Any]) -> Array:
    """The output tensor's rows as float32, or as they are where it is not quantised."""
    scale, zero_point = details["quantization"]
    if not _in_steps(rows.dtype, scale):
        return np.array(rows)
    made: Array = (rows.astype(np.float32) - zero_point) * np.float32(scale)
    return made.astype(np.float32)


def _in_steps(dtype: np.dtype[Any], scale: float) -> bool:
    """Whether values are small integers of a scale; tokens and counts are not."""
    return dtype.kind in "iu" and dtype.itemsize <= 2 and scale > 0
