"""Qualcomm's NPUs through onnxruntime-qnn: a context binary, and the HTP simulated on x86."""

from converters.model_file import ModelFile
from converters.targets.environments import Requirements
from converters.targets.onnx_shapes import one_row
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

    def prepare(self, model: ModelFile) -> bytes:
        """The compiler takes no dynamic batch."""
        return one_row(model.data)
