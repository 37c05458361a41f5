"""One float file, opened once, with what its format offers for quantising it."""

import functools
from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from converters import float16, onnx_graph, onnx_int8, onnx_weights, tflite_graph, tflite_int8
from converters.calibration import Range
from converters.graph import Step
from converters.model_file import ModelFile
from converters.tensors import Array, Feeds


class Quantiser(Protocol):
    """What both formats offer. Names are those of nodes (ONNX) or first outputs (TFLite)."""

    floats: ModelFile
    label: str
    """The quantised form's name, for the manifest."""
    steps: list[Step]
    products: list[str]
    """Names of the steps that int8 is for and that the format can quantise."""

    def watch(self, rows: Feeds) -> Iterable[Mapping[str, Array]]:
        """Run scaled rows in batches and show all float tensors."""
        ...

    def static(
        self, ranges: Mapping[str, Range], products: Collection[str], io: str, reduce_range: bool
    ) -> bytes:
        """Static int8 of some products."""
        ...

    def weight_only(self, kept: Collection[str]) -> bytes:
        """Int8 weights, except those of ``kept``."""
        ...

    def float16(self, kept: Collection[str]) -> bytes:
        """Half precision, except ``kept``."""
        ...

    def float_weights(self, data: bytes) -> set[str]:
        """Steps whose weights are float32 in a file."""
        ...


def open_quantiser(floats: ModelFile) -> Quantiser:
    """The quantiser for the file's format."""
    return OnnxQuantiser(floats) if floats.format == "onnx" else TfliteQuantiser(floats)


class OnnxQuantiser:
    """ONNX, by onnxruntime's quantiser."""

    label = "QDQ"

    def __init__(self, floats: ModelFile) -> None:
        self.floats = floats
        self._proto = onnx_graph.load(floats)
        self.steps = onnx_graph.steps(self._proto)
        self.products = onnx_graph.products(self._proto)
        self.watch = functools.partial(onnx_graph.watch, self._proto)

    def static(
        self, ranges: Mapping[str, Range], products: Collection[str], io: str, reduce_range: bool
    ) -> bytes:
        """See :meth:`Quantiser.static`. Inputs and outputs of ONNX files are float32."""
        assert io == "float32", "checked by the caller"
        return onnx_int8.quantise(self._proto, ranges, products, reduce_range=reduce_range)

    def weight_only(self, kept: Collection[str]) -> bytes:
        """See :meth:`Quantiser.weight_only`."""
        return onnx_weights.quantise(self._proto, kept)

    def float16(self, kept: Collection[str]) -> bytes:
        """See :meth:`Quantiser.float16`."""
        return float16.to_float16(self.floats, kept)

    def float_weights(self, data: bytes) -> set[str]:
        """See :meth:`Quantiser.float_weights`."""
        return onnx_int8.float_weights(data)


class TfliteQuantiser:
    """TFLite, by ai-edge-quantizer. Its kernels sum in 32 bits: no weight needs 7 bits."""

    label = "TFLite"

    def __init__(self, floats: ModelFile) -> None:
        self.floats = floats
        self.steps = tflite_graph.steps(floats.data)
        self.products = tflite_graph.products(floats.data)
        self.watch = functools.partial(tflite_graph.watch, floats)

    def static(
        self, ranges: Mapping[str, Range], products: Collection[str], io: str, reduce_range: bool
    ) -> bytes:
        """See :meth:`Quantiser.static`; ``reduce_range`` changes nothing here."""
        del reduce_range
        return tflite_int8.quantise(
            self.floats, ranges, products, io="int8" if io == "int8" else "float32"
        )

    def weight_only(self, kept: Collection[str]) -> bytes:
        """See :meth:`Quantiser.weight_only`."""
        return tflite_int8.weight_only(self.floats, kept)

    def float16(self, kept: Collection[str]) -> bytes:
        """See :meth:`Quantiser.float16`."""
        return float16.to_float16(self.floats, kept)

    def float_weights(self, data: bytes) -> set[str]:
        """See :meth:`Quantiser.float_weights`."""
        return tflite_int8.float_weights(data)
