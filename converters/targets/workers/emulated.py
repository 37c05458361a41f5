"""Answers rows on an emulated processor: imports numpy and one runtime, nothing of Serinus.

``python emulated.py MODEL FEEDS ANSWERS``: FEEDS is an ``.npz`` of inputs by their place in the
file (``0``, ``1``, ...), ANSWERS one of outputs by theirs. The suffix names the runtime.
"""

import sys

import numpy as np


def main():
    """Run one model on all rows."""
    model, feeds, answers = sys.argv[1:]
    with np.load(feeds, allow_pickle=False) as arrays:
        given = [arrays[str(place)] for place in range(len(arrays.files))]
    run = by_onnxruntime if model.endswith(".onnx") else by_litert
    np.savez(answers, **{str(place): found for place, found in enumerate(run(model, given))})


def by_onnxruntime(model, given):
    """All rows as one batch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    return session.run(None, dict(zip(names, given, strict=True)))


def by_litert(model, given):
    """All rows as one batch where the file can be resized, else row by row."""
    rows = len(given[0])
    try:
        return invoked(model, given)
    except RuntimeError:
        parts = [invoked(model, [array[row : row + 1] for array in given]) for row in range(rows)]
        return [np.concatenate(found) for found in zip(*parts, strict=True)]


def invoked(model, given):
    """One batch; int8 at the ends is quantised and dequantised here."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=model, num_threads=1)
    inputs = interpreter.get_input_details()
    for details, array in zip(inputs, given, strict=True):
        interpreter.resize_tensor_input(details["index"], list(array.shape))
    interpreter.allocate_tensors()
    for details, array in zip(inputs, given, strict=True):
        interpreter.set_tensor(details["index"], array)
    interpreter.invoke()
    outputs = interpreter.get_output_details()
    return [np.array(interpreter.get_tensor(details["index"])) for details in outputs]


if __name__ == "__main__":
    main()
