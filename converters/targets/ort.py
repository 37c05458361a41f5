"""Processors through onnxruntime."""

from converters import onnx_int8
from converters.targets.cpu import Processor
from converters.targets.target import Compiled, Placement


class Adapter(Processor):
    """See :class:`converters.targets.target.Target`."""

    package = "onnxruntime"

    def placement(self, compiled: Compiled) -> Placement:
        """From the graph that onnxruntime optimised for this machine."""
        return onnx_int8.placement(compiled.source)
