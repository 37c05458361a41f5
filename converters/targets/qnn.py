"""Qualcomm's NPUs through onnxruntime-qnn: a context binary, and the HTP simulated on x86."""

import msgspec

from converters import onnx_int8
from converters.model_file import ModelFile
from converters.targets.environments import Requirements
from converters.targets.floating_left import allowed, called
from converters.targets.onnx_shapes import one_row, without_subtractions
from converters.targets.target import Compiled, Placement
from converters.targets.vendor import Vendor

VERSION = "2.7.0"


class Adapter(Vendor):
    """See :class:`converters.targets.target.Target`."""

    requirements = Requirements(
        "qnn", ((f"onnxruntime-qnn=={VERSION}", "onnxruntime==1.32.0", "numpy==2.4.6"),)
    )
    worker = "qnn.py"
    by = f"onnxruntime-qnn {VERSION}"
    answers_by = "HTP simulated on x86_64"

    def placement(self, compiled: Compiled) -> Placement:
        """Where the provider put operators; products in float are misplaced, too.

        The HTP computes them in float16, which costs far more than int8.
        """
        source, found = compiled.source, super().placement(compiled)
        floats = tuple(
            f"{called(source, name)} in float"
            for name in sorted(onnx_int8.float_weights(source.data))
            if not allowed(source, name)
        )
        return msgspec.structs.replace(found, misplaced=(*found.misplaced, *floats))

    def prepare(self, model: ModelFile) -> bytes:
        """The compiler takes no dynamic batch, and for v68 no subtraction in float."""
        return without_subtractions(one_row(model.data))
