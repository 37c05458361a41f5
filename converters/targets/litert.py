"""Processors through LiteRT."""

from converters import tflite_int8
from converters.targets.cpu import Processor
from converters.targets.target import Compiled, Placement


class Adapter(Processor):
    """See :class:`converters.targets.target.Target`."""

    package = "ai-edge-litert"

    def placement(self, compiled: Compiled) -> Placement:
        """From the operators of the file."""
        return tflite_int8.placement(compiled.source)
