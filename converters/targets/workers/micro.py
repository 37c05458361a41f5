"""Answers rows by TensorFlow Lite Micro: imports numpy and the interpreter, nothing of Serinus.

``python micro.py MODEL FEEDS ANSWERS ARENA_BYTES``: FEEDS is an ``.npz`` of int8 inputs by their
place (``0``, ``1``, ...), ANSWERS one of int8 outputs by theirs. What the interpreter says of its
memory goes to standard error.
"""

import sys
from pathlib import Path

import numpy as np
from tflite_micro.python.tflite_micro import runtime


def main():
    """Run one model row by row, as the device does."""
    model, feeds, answers, arena = sys.argv[1:]
    with np.load(feeds, allow_pickle=False) as arrays:
        given = [arrays[str(place)] for place in range(len(arrays.files))]
    interpreter = runtime.Interpreter.from_bytes(Path(model).read_bytes(), arena_size=int(arena))
    rows = []
    for row in range(len(given[0])):
        for place, array in enumerate(given):
            interpreter.set_input(array[row : row + 1], place)
        interpreter.invoke()
        rows.append(outputs(interpreter))
    interpreter.print_allocations()
    found = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
    np.savez(answers, **{str(place): array for place, array in enumerate(found)})


def outputs(interpreter):
    """All outputs of the last row; the interpreter does not tell their number."""
    found = []
    while True:
        try:
            found.append(np.array(interpreter.get_output(len(found))))
        except (IndexError, ValueError, RuntimeError):
            return found


if __name__ == "__main__":
    main()
