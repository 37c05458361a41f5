"""Where the operators of a quantised file run, as the processor targets say it."""

from converters.model_file import ModelFile
from converters.targets import litert, ort
from converters.targets.target import Placement


def placed(made: ModelFile) -> Placement:
    if made.format == "onnx":
        return ort.placed(ort.optimised(made.data), made)
    return litert.placed(made, made.data)
