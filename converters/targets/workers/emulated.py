"""Answers rows on an emulated processor: imports numpy and one runtime, nothing of Serinus.

``python emulated.py MODEL FEEDS ANSWERS``: FEEDS is an ``.npz`` of inputs by their place in the
file (``0``, ``1``, ...), ANSWERS one of outputs by theirs. The model's suffix names the runtime.
``python emulated.py MODEL OPTIMISED`` writes the graph that onnxruntime runs of the model.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

LARGEST_BATCH = 256
ERRORS_ONLY = 3

Arrays = list[Any]


def main() -> None:
    """Run one model on all rows, or show what would run."""
    if len(sys.argv) == 3:
        onnx_session(sys.argv[1], optimised=sys.argv[2])
        return
    model, feeds, answers = sys.argv[1:]
    with np.load(feeds, allow_pickle=False) as arrays:
        given = [arrays[str(place)] for place in range(len(arrays.files))]
    run = by_onnxruntime(model) if model.endswith(".onnx") else by_litert(model)
    parts = [
        run([array[start : start + LARGEST_BATCH] for array in given])
        for start in range(0, len(given[0]), LARGEST_BATCH)
    ]
    np.savez(answers, **{str(place): found for place, found in enumerate(joined(parts))})


def joined(parts: list[Arrays]) -> Arrays:
    """Outputs of several batches as one."""
    return [np.concatenate(found) for found in zip(*parts, strict=True)]


def by_onnxruntime(model: str) -> Callable[[Arrays], Arrays]:
    """Answers one batch."""
    session = onnx_session(model)
    names = [entry.name for entry in session.get_inputs()]
    return lambda given: list(session.run(None, dict(zip(names, given, strict=True))))


def onnx_session(model: str, optimised: str = "") -> Any:
    """Load a model; write what the runtime made of it where ``optimised`` names a file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    if optimised:
        options.optimized_model_filepath = optimised
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def by_litert(model: str) -> Callable[[Arrays], Arrays]:
    """Answers one batch; row by row where the file's shapes hold their batch."""
    planned: dict[int, Any] = {}

    def batch(given: Arrays) -> Arrays:
        rows = len(given[0])
        if rows not in planned:
            planned[rows] = interpreter(model, rows)
        return invoked(planned[rows], given)

    def answer(given: Arrays) -> Arrays:
        try:
            return batch(given)
        except RuntimeError:
            one = range(len(given[0]))
            return joined([batch([array[row : row + 1] for array in given]) for row in one])

    return answer


def interpreter(model: str, rows: int) -> Any:
    """LiteRT laid out for so many rows."""
    from ai_edge_litert.interpreter import Interpreter

    made = Interpreter(model_path=model, num_threads=1)
    for details in made.get_input_details():
        if rows != details["shape"][0]:
            made.resize_tensor_input(details["index"], [rows, *details["shape"][1:]])
    made.allocate_tensors()
    return made


def invoked(made: Any, given: Arrays) -> Arrays:
    """One batch, in the types that the file has."""
    for details, array in zip(made.get_input_details(), given, strict=True):
        made.set_tensor(details["index"], array)
    made.invoke()
    return [np.array(made.get_tensor(details["index"])) for details in made.get_output_details()]


if __name__ == "__main__":
    main()
