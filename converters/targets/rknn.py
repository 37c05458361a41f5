"""Rockchip's NPUs through rknn-toolkit2, with its own simulator."""

from converters.model_file import ModelFile
from converters.targets.environments import Requirements
from converters.targets.onnx_shapes import one_row
from converters.targets.target import Compiled
from converters.targets.vendor import Vendor

VERSION = "2.5.0"
OPSET = 19
"""The newest that the toolkit reads."""


class Adapter(Vendor):
    """See :class:`converters.targets.target.Target`."""

    # The toolkit pins an old torch, of which it needs no more than the import; the newer one
    # works and has a small processor-only build.
    requirements = Requirements(
        "rknn",
        (
            ("--no-deps", f"rknn-toolkit2=={VERSION}", "torch==2.13.0"),
            (
                "protobuf==4.25.4",
                "numpy==1.26.4",
                "onnx==1.18.0",
                "onnxruntime==1.22.0",
                "scipy==1.15.3",
                "opencv-python-headless==4.11.0.86",
                "fast-histogram==0.14",
                "ruamel.yaml==0.18.15",
                "psutil",
                "tqdm",
                "setuptools",
                "filelock",
                "sympy",
                "networkx",
                "jinja2",
                "fsspec",
                "typing_extensions",
            ),
        ),
    )
    worker = "rknn.py"
    by = f"rknn-toolkit2 {VERSION}"
    answers_by = "its simulator on x86_64"

    def prepare(self, model: ModelFile) -> bytes:
        """One row, in an operator set that the toolkit knows."""
        return one_row(model.data, OPSET)

    def runs(self, compiled: Compiled) -> bytes:
        """The file before compilation: the simulator runs only what it built itself."""
        return self.prepare(compiled.source)
