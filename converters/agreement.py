"""Whether a float file answers as the torch module does, before anything is built on it."""

import re
from typing import Any

import numpy as np

from converters.capturing import ROOT
from converters.floating import FloatModel
from converters.model_file import ModelFile, Runner
from converters.refusal import StageFailed
from converters.tensors import Array, Feeds, rows_of, take
from edge_core.errors import quoted

TOLERANCE = 1e-3
"""Largest difference, relative to the output's largest magnitude; runtimes order sums freely and
approximate GELU and the like."""
MAX_ROWS = 64
"""A wrong operator shows in a few rows; TFLite runs them one by one."""


def check_same(model: FloatModel, file: ModelFile, feeds: Feeds) -> dict[str, float]:
    """Run a float file and its model on rows; give the relative difference of each output.

    Raises:
        StageFailed: the runtime refuses the file, or an output differs by more than
            ``TOLERANCE``, or is not finite, or the model's answer to a row depends on the rows
            beside it.
    """
    rows = take(feeds, range(min(rows_of(feeds), MAX_ROWS)))
    expected = model.run(rows)
    _check_rows_apart(model, rows, expected)
    try:
        answered = (_onnx if file.format == "onnx" else _tflite)(file)(rows)
    except Exception as error:
        raise StageFailed(_why(error, file)) from error
    found = {name: _difference(expected[name], answered[name]) for name in expected}
    for name, difference in found.items():
        if not difference <= TOLERANCE:
            raise StageFailed(
                f"{_runtime(file)} answers {name} differently from torch: by {difference:.2g} of "
                f"its range, allowed is {TOLERANCE:g}; the exported model is not the trained one"
            )
    return found


def _check_rows_apart(model: FloatModel, rows: Feeds, expected: dict[str, Array]) -> None:
    alone = model.run(take(rows, [0]))
    for name, array in alone.items():
        if not _difference(expected[name][:1], array) <= TOLERANCE:
            raise StageFailed(
                f"the model answers {name} of a row differently beside other rows than alone; "
                "devices choose batches as they come, so rows must not mix"
            )


def _difference(expected: Array, answered: Array) -> float:
    if expected.shape != answered.shape:
        return float("inf")
    wanted, given = expected.astype(np.float64), answered.astype(np.float64)
    scale = max(float(np.abs(wanted).max(initial=0.0)), 1e-6)
    return float(np.abs(wanted - given).max(initial=0.0)) / scale


def _runtime(file: ModelFile) -> str:
    return "onnxruntime" if file.format == "onnx" else "LiteRT"


def _why(error: Exception, file: ModelFile) -> str:
    text = quoted(RuntimeError(" ".join(str(error).split())))
    for word in re.findall(r"[\w./#]+", str(error)):
        if word in file.origins:
            return (
                f"{_runtime(file)} cannot run {word}, which came from module "
                f"{file.origins[word] or ROOT}: {text}"
            )
    return f"{_runtime(file)} cannot run the exported model: {text}"


def _onnx(file: ModelFile) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file.data, options, ["CPUExecutionProvider"])
    names = [spec.name for spec in file.outputs]

    def answer(feeds: Feeds) -> dict[str, Array]:
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))

    return answer


def _tflite(file: ModelFile) -> Runner:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=file.data, num_threads=1)
    signature: Any = interpreter.get_signature_runner("serving_default")

    def answer(feeds: Feeds) -> dict[str, Array]:
        answered = [signature(**take(feeds, [row])) for row in range(rows_of(feeds))]
        return {
            spec.name: np.concatenate([one[spec.name] for one in answered]) for spec in file.outputs
        }

    return answer
