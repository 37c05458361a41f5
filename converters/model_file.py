"""A model as a file: float or quantised, ONNX or TFLite."""

from collections.abc import Callable, Mapping
from typing import Literal

from converters.product import Plain
from converters.tensors import Array, Feeds, TensorSpec
from edge_core.bundle.manifest import InputScaling

Format = Literal["onnx", "tflite"]
Scheme = Literal["float32", "int8 static", "int8 weight-only", "fp16", "mixed"]
Runner = Callable[[Feeds], dict[str, Array]]
"""Answers rows by input name with rows by output name."""


class ModelFile(Plain, frozen=True, kw_only=True):
    """Bytes that a runtime or a compiler takes, and what they came from.

    Inputs and outputs carry the names and shapes that people gave them, whatever the format calls
    them inside.
    """

    format: Format
    data: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    scheme: Scheme = "float32"
    settings: Mapping[str, str | bool | float] = {}
    """How it was quantised, for the manifest."""
    origins: Mapping[str, str] = {}
    """Layer name in the file -> torch module path that it came from."""
    float_layers: tuple[str, ...] = ()
    """Layers with weights that were left in float."""
    scaling: InputScaling | None = None
    """Set where the scaling was cut off: the file then takes scaled rows."""
