"""TensorFlow Lite Micro in a process of its own: imports numpy and the interpreter only.

``python micro.py MODEL FEEDS ANSWERS OUTPUTS ARENA_BYTES``: FEEDS is an ``.npz`` of inputs by their
place in the file (``0``, ``1``, ...), ANSWERS one of as many outputs as OUTPUTS says. With
``smallest`` behind it the smallest arena that the model runs in goes to standard output. What the
interpreter says of operators and memory goes to standard error.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tflite_micro.python.tflite_micro import runtime  # no stubs

ALIGNMENT = 16
LEAST_ARENA = 1024

Arrays = list[Any]


def main() -> None:
    """Run one model row by row, as the device does."""
    model, feeds, answers, outputs, arena = sys.argv[1:6]
    data = Path(model).read_bytes()
    with np.load(feeds, allow_pickle=False) as arrays:
        given = [arrays[str(place)] for place in range(len(arrays.files))]
    interpreter = runtime.Interpreter.from_bytes(data, arena_size=int(arena))
    rows = []
    for row in range(len(given[0])):
        invoke(interpreter, [array[row : row + 1] for array in given])
        rows.append([np.array(interpreter.get_output(place)) for place in range(int(outputs))])
    interpreter.print_allocations()
    found: Arrays = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
    np.savez(answers, **{str(place): array for place, array in enumerate(found)})
    if sys.argv[6:] == ["smallest"]:
        print(smallest_arena(data, [array[:1] for array in given], int(arena)))


def invoke(interpreter: Any, given: Arrays) -> None:
    """Answer one row."""
    for place, array in enumerate(given):
        interpreter.set_input(array, place)
    interpreter.invoke()


def smallest_arena(data: bytes, given: Arrays, largest: int) -> int:
    """Bytes, a multiple of the alignment: the interpreter reports less than it needs."""
    too_small, enough = 0, LEAST_ARENA
    while enough < largest and not fits(data, given, enough):
        too_small, enough = enough, enough * 2
    while enough - too_small > ALIGNMENT:
        middle = (too_small + enough) // 2 // ALIGNMENT * ALIGNMENT
        if fits(data, given, middle):
            enough = middle
        else:
            too_small = middle
    return enough


def fits(data: bytes, given: Arrays, arena: int) -> bool:
    """Whether the model runs in so many bytes; tried in a fork, since too few may end it."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        try:
            invoke(runtime.Interpreter.from_bytes(data, arena_size=arena), given)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    main()
