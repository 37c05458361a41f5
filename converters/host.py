"""Runs a model file on this machine, to measure what quantising lost."""

from converters.model_file import ModelFile, Runner
from converters.targets import litert, ort


def runner(model: ModelFile) -> Runner:
    """Load once, run often: unscaled rows in, float32 rows out, one thread.

    Raises:
        InvalidInput: the file is damaged.
        StageFailed: the runtime refuses the file.
    """
    return ort.runner(model) if model.format == "onnx" else litert.runner(model)
